#!/usr/bin/env python3
"""Clients that make a server keep much: each sends almost all of a large head, and its end not.

Standard input: a line with the port. They stay until it closes.
"""

import resource
import socket
import sys

CLIENTS = 2000
ADDRESSES = 8
# Below the bound of 32 KiB and 100 fields.
HEAD = b"GET /health HTTP/1.1\r\nHost: sunrise.localhost\r\n" + b"".join(
    b"X-Ballast-%d: %s\r\n" % (number, b"b" * 3000) for number in range(10)
)

limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
port = int(sys.stdin.readline())
clients = []
for number in range(CLIENTS):
    client = socket.socket()
    client.bind((f"127.0.1.{number % ADDRESSES + 1}", 0))
    client.connect(("127.0.0.1", port))
    client.sendall(HEAD)
    clients.append(client)
sys.stdin.read()
