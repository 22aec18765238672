"""Holds connections that have asked one thing each.

    idle_clients.py plain|tls|http2|websocket PORT NUMBER

NUMBER tells client processes apart: each connects from loopback addresses of its own, for one address has some 28,000
ports to connect from. Each line on standard input is how many connections there shall be; when so many are there and
were answered, that is printed. An empty line ends it.
"""

import socket
import ssl
import sys

kind, port, process = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE

HOST = b"bench.localhost"
REQUEST = b"GET /health HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"
UPGRADE = (
    b"GET /_conformance/ws HTTP/1.1\r\nHost: " + HOST + b"\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
# A masked text message of four bytes; the mask is zero.
MESSAGE = b"\x81\x84\x00\x00\x00\x00ping"


def frame(type, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([type, flags]) + stream.to_bytes(4, "big") + payload


# GET of /health by prior knowledge (RFC 7541: method and scheme by index, path and authority as literals).
HTTP2 = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + frame(4, 0, 0)
    + frame(1, 0x05, 1, b"\x82\x86\x04\x07/health\x01" + bytes([len(HOST)]) + HOST)
)


def connect(number):
    made = socket.socket()
    # The port is chosen when the connection is made, among those that are free for this server (man 7 ip).
    made.setsockopt(socket.SOL_IP, 24, 1)
    made.bind((f"127.0.{1 + process}.{1 + number % 4}", 0))
    made.connect(("127.0.0.1", port))
    return context.wrap_socket(made, server_hostname=HOST.decode()) if kind == "tls" else made


def read_until(connection, end):
    received = b""
    while end not in received:
        piece = connection.recv(4096)
        assert piece, received
        received += piece
    return received


def ask(connection):
    if kind == "websocket":
        connection.sendall(UPGRADE)
        assert b" 101 " in read_until(connection, b"\r\n\r\n")
        connection.sendall(MESSAGE)
        read_until(connection, b"ping")
    elif kind == "http2":
        connection.sendall(HTTP2)
        read_until(connection, b'"ok"}')
        # What the server said of itself is acknowledged, as every client does.
        connection.sendall(frame(4, 1, 0))
    else:
        connection.sendall(REQUEST)
        assert read_until(connection, b"}").startswith(b"HTTP/1.1 200")


connections = []
while line := sys.stdin.readline().strip():
    while len(connections) < int(line):
        connections.append(connect(len(connections)))
        ask(connections[-1])
    print(len(connections), flush=True)
