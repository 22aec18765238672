"""A WebSocket client of somebody else's making against /_conformance/ws.

usage: websocket.py PORT TLS_PORT. Says "done" when everything was as it should be.
"""

import asyncio
import json
import os
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings
import websockets

PATH = "/_conformance/ws"


async def echo(url, **options):
    async with websockets.connect(url, max_size=None, **options) as peer:
        for message in ["", "Grüße, 患者", "x" * 100_000, b"", bytes(range(256)) * 100, os.urandom(1 << 20)]:
            await peer.send(message)
            assert await peer.recv() == message
        # Fragments, each compressed.
        await peer.send(["one ", "two ", "three"])
        assert await peer.recv() == "one two three"
        await asyncio.wait_for(await peer.ping(b"there?"), 20)
        for number in range(200):
            await peer.send(str(number))
        assert [await peer.recv() for _ in range(200)] == [str(number) for number in range(200)]
        names = [extension.name for extension in peer.extensions]
        await peer.close(4000, "bye")
        assert peer.close_code == 4000, peer.close_code
    return names


async def refused(port):
    try:
        async with websockets.connect(f"ws://127.0.0.1:{port}/health"):
            raise AssertionError("a path that is no WebSocket was one")
    except websockets.exceptions.InvalidStatusCode as refusal:
        assert refusal.status_code == 200, refusal.status_code


def frame(opcode, content):
    mask = os.urandom(4)
    assert len(content) < 126
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(content))
    return bytes([0x80 | opcode, 0x80 | len(content)]) + mask + masked


def over_http2(tls_port):
    """RFC 8441: a WebSocket on one stream, while another has a request of its own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", tls_port), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname="sunrise.localhost") as stream:
            assert stream.selected_alpn_protocol() == "h2"
            connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
            connection.initiate_connection()
            stream.sendall(connection.data_to_send())
            seen = {"settings": False, "status": {}, "data": {1: b"", 3: b""}, "ended": set()}

            def read(until):
                while not until():
                    received = stream.recv(65536)
                    assert received, "the connection ended"
                    for event in connection.receive_data(received):
                        if isinstance(event, h2.events.RemoteSettingsChanged):
                            code = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
                            if code in event.changed_settings:
                                seen["settings"] = event.changed_settings[code].new_value == 1
                        elif isinstance(event, h2.events.ResponseReceived):
                            seen["status"][event.stream_id] = dict(event.headers)[":status"]
                        elif isinstance(event, h2.events.DataReceived):
                            seen["data"][event.stream_id] += event.data
                            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        elif isinstance(event, h2.events.StreamEnded):
                            seen["ended"].add(event.stream_id)
                    stream.sendall(connection.data_to_send())

            read(lambda: seen["settings"])
            connection.send_headers(
                1,
                [
                    (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
                    (":path", PATH), (":authority", f"sunrise.localhost:{tls_port}"),
                    ("sec-websocket-version", "13"),
                ],
            )
            stream.sendall(connection.data_to_send())
            read(lambda: 1 in seen["status"])
            assert seen["status"][1] == "200", seen["status"]
            connection.send_headers(
                3,
                [
                    (":method", "GET"), (":scheme", "https"), (":path", "/health"),
                    (":authority", f"sunrise.localhost:{tls_port}"),
                ],
                end_stream=True,
            )
            connection.send_data(1, frame(1, b"over h2") + frame(9, b"p"))
            stream.sendall(connection.data_to_send())
            wanted = {b"\x81\x07over h2", b"\x8a\x01p"}
            read(lambda: len(seen["data"][1]) >= 12 and 3 in seen["ended"])
            assert all(part in seen["data"][1] for part in wanted), seen["data"]
            assert json.loads(seen["data"][3]) == {"status": "ok"}
            connection.send_data(1, frame(8, b"\x03\xe8"))
            stream.sendall(connection.data_to_send())
            read(lambda: 1 in seen["ended"])
            assert seen["data"][1].endswith(b"\x88\x02\x03\xe8"), seen["data"]


async def main(port, tls_port):
    url = f"ws://127.0.0.1:{port}{PATH}"
    assert await echo(url) == ["permessage-deflate"]
    assert await echo(url, compression=None) == []
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    secure = f"wss://127.0.0.1:{tls_port}{PATH}"
    assert await echo(secure, ssl=context, server_hostname="sunrise.localhost") == ["permessage-deflate"]
    await asyncio.gather(*(echo(url) for _ in range(20)))
    await refused(port)
    over_http2(tls_port)


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
print("done")
