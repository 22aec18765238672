"""Connections that come, ask one thing and go, at a fixed rate: in turn plain, over TLS, HTTP/2 (without and with
TLS) and WebSocket.

    churn_clients.py PORT TLS_PORT PER_SECOND SECONDS

The schedule is open: connection n begins at n / PER_SECOND seconds, however long others take; more than 256 at once
is a failure of the server. Prints how many there were.
"""

import asyncio
import ssl
import sys

port, tls_port, rate, seconds = (int(argument) for argument in sys.argv[1:])
AT_ONCE_MAX = 256
HOST = "bench.localhost"


def context(protocol):
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols([protocol])
    return made


CONTEXTS = {"http/1.1": context("http/1.1"), "h2": context("h2")}
REQUEST = f"GET /health HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
UPGRADE = (
    f"GET /_conformance/ws HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
).encode()


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def http2(scheme):
    # RFC 7541: GET and the scheme by their indices, path and authority as literals.
    fields = bytes([0x82, scheme, 0x04, 7]) + b"/health" + bytes([0x01, len(HOST)]) + HOST.encode()
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 0x05, 1, fields)
    )


async def ask(reader, writer, kind):
    if kind == "plain" or kind == "tls":
        writer.write(REQUEST)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    elif kind == "websocket":
        writer.write(UPGRADE)
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x81\x84\x00\x00\x00\x00ping")
        assert await reader.readexactly(6) == b"\x81\x04ping"
        writer.write(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
        assert await reader.readexactly(4) == b"\x88\x02\x03\xe8"
    else:
        writer.write(http2(0x86 if kind == "h2c" else 0x87))
        while True:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3], "big"))
            # The end of the only stream, on DATA.
            if head[3] == 0 and head[4] & 1:
                break
        writer.write(frame(7, 0, 0, bytes(8)))


async def one(number):
    kind = ("plain", "tls", "h2c", "h2", "websocket")[number % 5]
    secure = {"tls": "http/1.1", "h2": "h2"}.get(kind)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        tls_port if secure else port,
        ssl=CONTEXTS[secure] if secure else None,
        server_hostname=HOST if secure else None,
    )
    try:
        await asyncio.wait_for(ask(reader, writer, kind), 30)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass


async def main():
    loop = asyncio.get_running_loop()
    running = set()
    failures = []
    started = loop.time()

    def ended(task):
        running.discard(task)
        if task.exception():
            failures.append(task.exception())

    for number in range(rate * seconds):
        # When the next is due by the schedule: pacing, not waiting for anybody.
        await asyncio.sleep(started + number / rate - loop.time())
        task = asyncio.create_task(one(number))
        running.add(task)
        task.add_done_callback(ended)
        assert len(running) <= AT_ONCE_MAX, "connections pile up"
    await asyncio.gather(*running, return_exceptions=True)
    print(rate * seconds, "connections,", len(failures), "failed", *map(repr, failures[:3]))
    sys.exit(1 if failures else 0)


asyncio.run(main())
