"""Requests with trailers to /_conformance/echo, which gives them back as trailers.

usage: trailers.py PORT TLS_PORT. Says "done" when everything was as it should be.
"""

import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events

port, tls_port = int(sys.argv[1]), int(sys.argv[2])
insecure = ssl.create_default_context()
insecure.check_hostname = False
insecure.verify_mode = ssl.CERT_NONE


def connect(secure, protocol):
    connection = socket.create_connection(("127.0.0.1", tls_port if secure else port), timeout=20)
    if not secure:
        return connection
    insecure.set_alpn_protocols([protocol])
    return insecure.wrap_socket(connection, server_hostname="sunrise.localhost")


def http1(secure, wanted, accept="application/json"):
    with connect(secure, "http/1.1") as connection:
        connection.sendall(
            b"POST /_conformance/echo HTTP/1.1\r\nHost: sunrise.localhost\r\nConnection: close\r\n"
            + b"Accept: " + accept.encode() + b"\r\n"
            + (b"TE: trailers\r\n" if wanted else b"")
            + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 5d41402a\r\n\r\n"
        )
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"hello" in content, answer
    if wanted:
        assert b"\r\ntrailer: x-sum" in head.lower(), answer
        assert content.endswith(b"\r\n0\r\nX-Sum: 5d41402a\r\n\r\n"), answer
    else:
        assert b"x-sum: 5d" not in content.lower(), answer


def http2(secure, accept="application/json"):
    connection = connect(secure, "h2")
    session = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    session.initiate_connection()
    session.send_headers(
        1,
        [
            (":method", "POST"), (":scheme", "https" if secure else "http"),
            (":authority", "sunrise.localhost"), (":path", "/_conformance/echo"),
            ("te", "trailers"), ("trailer", "x-sum"), ("accept", accept),
        ],
    )
    session.send_data(1, b"hello")
    session.send_headers(1, [("x-sum", "5d41402a")], end_stream=True)
    connection.sendall(session.data_to_send())
    content, trailers = b"", None
    while True:
        received = connection.recv(65536)
        assert received, "the server closed the connection"
        for event in session.receive_data(received):
            if isinstance(event, h2.events.DataReceived):
                content += event.data
            elif isinstance(event, h2.events.TrailersReceived):
                trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
            elif isinstance(event, h2.events.StreamReset):
                raise AssertionError(event)
            elif isinstance(event, h2.events.StreamEnded):
                assert b"hello" in content, content
                assert trailers == [(b"x-sum", b"5d41402a")], trailers
                connection.close()
                return
        connection.sendall(session.data_to_send())


for secure in (False, True):
    for accept in ("application/json", "application/octet-stream"):
        http1(secure, True, accept)
        http1(secure, False, accept)
        http2(secure, accept)
print("done")
