"""Messages of many sizes, whole, in fragments and in small writes, and every way to agree on permessage-deflate,
against /_conformance/ws: what groups 9, 12 and 13 of the Autobahn test suite ask, with fewer messages.

usage: websocket_sizes.py PORT. Says "done" when everything was as it should be.
"""

import asyncio
import itertools
import json
import socket
import struct
import sys

import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

PATH = "/_conformance/ws"
TEXT, BINARY = 1, 2
# Words of a language that shrinks about as records do, different in each message.
WORDS = ["appointment", "patient", "naïve", "診療", "Größe", "10:30", "cancelled", "{", "}", "\n"]


def text(count, seed=0):
    """`count` bytes of UTF-8."""
    made = " ".join(itertools.islice(itertools.cycle(WORDS[seed % 10 :] + WORDS), count // 3 + 1))
    cut = made.encode()[:count].decode(errors="ignore")
    return cut + "x" * (count - len(cut.encode()))


class RawSocket:
    """Frames as they are written, with a mask of zeros."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            f"GET {PATH} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        self.input = self.socket.makefile("rb")
        assert b" 101 " in self.input.readline()
        while self.input.readline() != b"\r\n":
            pass

    @staticmethod
    def frame(opcode, content, final=True):
        count = len(content)
        head = bytes([(0x80 if final else 0) | opcode])
        if count < 126:
            head += bytes([0x80 | count])
        elif count < 1 << 16:
            head += bytes([0xFE]) + struct.pack("!H", count)
        else:
            head += bytes([0xFF]) + struct.pack("!Q", count)
        return head + bytes(4) + content

    def message(self):
        """The next message: its opcode and content, of however many frames."""
        kind, content = None, b""
        while True:
            first, count = self.input.read(2)
            if count == 126:
                (count,) = struct.unpack("!H", self.input.read(2))
            elif count == 127:
                (count,) = struct.unpack("!Q", self.input.read(8))
            content += self.input.read(count)
            kind = kind or first & 0x0F
            if first & 0x80:
                return kind, content

    def close(self):
        self.socket.sendall(self.frame(8, b"\x03\xe8"))
        assert self.message() == (8, b"\x03\xe8")
        assert self.input.read() == b""
        self.socket.close()


def sizes(port):
    """9.1 and 9.2: one frame. 9.3 and 9.4: fragments. 9.5 and 9.6: small writes."""
    peer = RawSocket(port)
    for kind in (TEXT, BINARY):
        for count in (0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20, 16 << 20):
            content = text(count).encode() if kind == TEXT else bytes(range(256)) * (count // 256 + 1)
            content = content[:count]
            peer.socket.sendall(peer.frame(kind, content))
            assert peer.message() == (kind, content), (kind, count)
        content = text(4 << 20).encode()
        for piece in (256, 4096, 65536, 1 << 20):
            frames = [
                peer.frame(kind if at == 0 else 0, content[at : at + piece], at + piece == len(content))
                for at in range(0, len(content), piece)
            ]
            peer.socket.sendall(b"".join(frames))
            assert peer.message() == (kind, content), (kind, piece)
        content = content[: 1 << 18]
        whole = peer.frame(kind, content)
        for piece in (64, 251, 2048):
            for at in range(0, len(whole), piece):
                peer.socket.sendall(whole[at : at + piece])
            assert peer.message() == (kind, content), (kind, piece)
    peer.close()


async def agreements(port):
    """12 and 13: each size with each offer; what is agreed on is what was offered."""
    for server_forgets, client_forgets, bits in itertools.product(
        (False, True), (False, True), (None, 9, 10, 12, 15)
    ):
        offer = ClientPerMessageDeflateFactory(server_forgets, client_forgets, bits, bits or True)
        async with websockets.connect(
            f"ws://127.0.0.1:{port}{PATH}", max_size=None, compression=None, extensions=[offer]
        ) as peer:
            (agreed,) = peer.extensions
            # From our side "remote" is the server.
            assert agreed.remote_no_context_takeover or not server_forgets, agreed
            assert agreed.local_no_context_takeover or not client_forgets, agreed
            assert bits is None or agreed.remote_max_window_bits <= bits, agreed
            assert bits is None or agreed.local_max_window_bits <= bits, agreed
            for number, count in enumerate([0, 1, 16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072] * 2):
                content = text(count, number)
                for message in (content, content.encode()):
                    await peer.send(message)
                    assert await peer.recv() == message, (agreed, count)
                pieces = [content.encode()[at : at + 1000] for at in range(0, count, 1000)] or [b""]
                await peer.send(pieces)
                assert await peer.recv() == content.encode(), (agreed, count)
            await peer.close()
            assert peer.close_code == 1000


def offers(port):
    """RFC 7692 5.1, 7.1: the first offer that can be kept is taken, and a wrong one is as if it were not there."""
    for offer, wanted in [
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; client_max_window_bits=8", "any"),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=07", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; unknown", None),
        ("x-webkit-deflate-frame", None),
        ("permessage-deflate; unknown, permessage-deflate", "any"),
        ("permessage-bzip2, permessage-deflate; server_no_context_takeover", "server_no_context_takeover"),
        ('permessage-deflate; server_max_window_bits="10"', "server_max_window_bits=10"),
    ]:
        peer = socket.create_connection(("127.0.0.1", port), timeout=60)
        peer.sendall(
            f"GET {PATH} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Extensions: {offer}\r\n\r\n".encode()
        )
        head = peer.makefile("rb")
        assert b" 101 " in head.readline(), offer
        answer = None
        while (line := head.readline()) != b"\r\n":
            name, value = line.decode().split(":", 1)
            if name.lower() == "sec-websocket-extensions":
                answer = value.strip()
        peer.close()
        if wanted is None:
            assert answer is None, json.dumps([offer, answer])
        else:
            assert answer is not None, offer
            assert answer.split(";")[0].strip() == "permessage-deflate", answer
            assert wanted == "any" or wanted in answer.replace('"', ""), json.dumps([offer, answer])


sizes(int(sys.argv[1]))
asyncio.run(agreements(int(sys.argv[1])))
offers(int(sys.argv[1]))
print("done")
