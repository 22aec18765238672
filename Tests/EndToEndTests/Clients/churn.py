"""Connections that come, ask one thing and go: half of them in clear text, half over TLS.

    churn.py PORT TLS_PORT COUNT
"""

import socket
import ssl
import sys

port, tls_port, count = (int(argument) for argument in sys.argv[1:])
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE

REQUEST = b"GET /health HTTP/1.1\r\nHost: sunrise.localhost\r\nConnection: close\r\n\r\n"

for number in range(count):
    secure = number % 2 == 1
    connection = socket.create_connection(("127.0.0.1", tls_port if secure else port))
    if secure:
        connection = context.wrap_socket(connection, server_hostname="sunrise.localhost")
    connection.sendall(REQUEST)
    answer = b""
    while piece := connection.recv(4096):
        answer += piece
    assert answer.startswith(b"HTTP/1.1 200"), answer
    connection.close()
print("done")
