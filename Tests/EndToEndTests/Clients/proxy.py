"""A proxy that speaks the PROXY protocol, version 2, to the doors of a server that trusts 127.0.0.2.

usage: proxy.py PORT TLS_PORT PER_ADDRESS. PER_ADDRESS is how many connections the server lets one address have.
Says "done" when everything was as it should be.
"""

import socket
import ssl
import struct
import sys

port, tls_port, per_address = (int(argument) for argument in sys.argv[1:])
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
insecure = ssl.create_default_context()
insecure.check_hostname = False
insecure.verify_mode = ssl.CERT_NONE


def header(client=None, tlvs=b"", command=1):
    """The header for a client, as HAProxy's document lays it out in 2.2; without one a LOCAL connection."""
    if client is None:
        family, addresses = 0, b""
    elif ":" in client:
        family = 0x21
        addresses = socket.inet_pton(socket.AF_INET6, client) + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    else:
        family = 0x11
        addresses = socket.inet_aton(client) + socket.inet_aton("192.0.2.1")
    ports = struct.pack("!HH", 40000, 443) if client else b""
    body = addresses + ports + tlvs
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(body)) + body


def tlv(kind, value):
    return bytes([kind]) + struct.pack("!H", len(value)) + value


def connect(preface, secure=False, source="127.0.0.2"):
    connection = socket.create_connection(
        ("127.0.0.1", tls_port if secure else port), timeout=20, source_address=(source, 0)
    )
    # In two pieces: a header may be cut anywhere.
    connection.sendall(preface[:7])
    connection.sendall(preface[7:])
    if secure:
        connection = insecure.wrap_socket(connection, server_hostname="sunrise.localhost")
    return connection


def ask(connection, name):
    """Asks for health with `name` as the request's id, by which the log is searched; None if the connection is cut."""
    try:
        connection.sendall(
            b"GET /health HTTP/1.1\r\nHost: sunrise.localhost\r\nX-Request-Id: " + name.encode() + b"\r\n\r\n"
        )
        answer = b""
        while not answer.endswith(b"}"):
            piece = connection.recv(4096)
            if not piece:
                return None
            answer += piece
        return int(answer.split()[1])
    except (ConnectionError, ssl.SSLError):
        return None


def attempt(name, preface, secure=False, source="127.0.0.2"):
    try:
        with connect(preface, secure, source) as connection:
            return ask(connection, name)
    except (ConnectionError, ssl.SSLError):
        return None


CASES = {
    "ipv4": header("198.51.100.7"),
    "ipv6": header("2001:db8:1::7"),
    "mapped": header("::ffff:198.51.100.9"),
    "local": header(command=0),
    # ALPN, an authority, padding and a unique id: what is not needed is skipped.
    "tlvs": header(
        "198.51.100.8",
        tlv(1, b"h2") + tlv(2, b"sunrise.localhost") + tlv(4, bytes(20)) + tlv(5, b"id" * 8),
    ),
}
for secure in (False, True):
    door = "tls" if secure else "plain"
    for name, preface in CASES.items():
        assert attempt(f"proxy-{door}-{name}", preface, secure) == 200, (door, name)
    # Whoever is not trusted does not come in, with a header or without.
    assert attempt("proxy-untrusted", CASES["ipv4"], secure, "127.0.0.3") is None
    assert attempt("proxy-untrusted", b"", secure, "127.0.0.3") is None
    # The trusted proxy has to say for whom it speaks.
    broken = {
        "version 1": b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 443\r\n",
        "no header": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "version 3": SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
        "short": SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
        "checksum": header("198.51.100.7", tlv(3, bytes(4))),
        "beyond": header("198.51.100.7", b"\x01\x00\xff"),
    }
    for name, preface in broken.items():
        assert attempt("proxy-broken", preface, secure) is None, (door, name)

# One client behind the proxy has as many connections as one may have; another is not hurt by that, nor is the proxy.
held = [connect(CASES["ipv4"]) for _ in range(per_address)]
for number, connection in enumerate(held):
    assert ask(connection, f"proxy-held-{number}") == 200
assert attempt("proxy-too-many", CASES["ipv4"]) is None
assert attempt("proxy-other", CASES["tlvs"]) == 200
assert attempt("proxy-other", CASES["ipv6"]) == 200
locals_held = [connect(CASES["local"]) for _ in range(per_address + 1)]
for connection in locals_held:
    assert ask(connection, "proxy-itself") == 200
for connection in held + locals_held:
    connection.close()
print("done")
