"""Holds connections that have asked one thing each, until a line comes on standard input.

    idle_clients.py plain|tls|websocket PORT COUNT

Prints how many there are when all have been answered.
"""

import socket
import ssl
import sys

kind, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE

REQUEST = b"GET /health HTTP/1.1\r\nHost: bench.localhost\r\n\r\n"
UPGRADE = (
    b"GET /_conformance/ws HTTP/1.1\r\nHost: bench.localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
# A masked text message of four bytes; the mask is zero.
MESSAGE = b"\x81\x84\x00\x00\x00\x00ping"


def connect(number):
    # One address has some 28,000 ports to connect from.
    source = ("127.0.0.%d" % (2 + number % 16), 0)
    connection = socket.create_connection(("127.0.0.1", port), source_address=source)
    if kind == "tls":
        connection = context.wrap_socket(connection, server_hostname="bench.localhost")
    return connection


def read_until(connection, end):
    received = b""
    while end not in received:
        piece = connection.recv(4096)
        assert piece, received
        received += piece
    return received


connections = []
for number in range(count):
    connection = connect(number)
    if kind == "websocket":
        connection.sendall(UPGRADE)
        assert b" 101 " in read_until(connection, b"\r\n\r\n")
        connection.sendall(MESSAGE)
        read_until(connection, b"ping")
    else:
        connection.sendall(REQUEST)
        assert read_until(connection, b"}").startswith(b"HTTP/1.1 200")
    connections.append(connection)
print(len(connections), flush=True)
sys.stdin.readline()
