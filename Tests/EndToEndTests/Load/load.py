#!/usr/bin/env python3
"""An open-loop load that knows what became of each request.

Requests begin by the clock, whether the ones before have been answered or not. Each is entered in a ledger when its
first byte is written, and ends there as answered, or lost. A client that behaves may send a request again only where
the protocol says that the server has not touched it; every such case is counted too.

Lost is a request that was written to a connection which then ended without its answer, unless the server had said
before that the connection ends (HTTP/1.1: Connection: close; HTTP/2: GOAWAY with a lower last stream).

Some requests book appointments, and sockets follow the calendar that they are in. A socket that is closed with 1012
comes back with the last sequence it has seen; an appointment that was acknowledged and is not told to every socket is
missed.

The first line on standard input is the configuration, a JSON object. After that: `mark` prints the counts so far as
one line of JSON, `reach N` does so when N requests have been answered, `stop` sends no more, waits for the answers that are owed, prints the counts and ends.
"""

import asyncio
import base64
import collections
import datetime
import json
import os
import struct
import sys
import time

try:
    import h2.config
    import h2.connection
    import h2.events
except ImportError:
    h2 = None

# How long an answer may take before its request counts as lost.
PATIENCE = 60.0
# What a client lets pass, in seconds, before it tries again to connect: its manners, not a wait for something.
RETRY_PAUSE = 0.05
CONNECTIONS_MAX = 256


class Ledger:
    """What was sent and what became of it."""

    def __init__(self):
        self.sent = 0
        self.answered = 0
        self.lost = []
        self.doubled = 0
        # Answers that name another request.
        self.mixed = 0
        self.statuses = collections.Counter()
        # Requests that the server has said it did not touch, sent again.
        self.again = 0
        # Those of them that found nobody to be sent to before the end.
        self.untouched = 0
        self.connections = collections.Counter()
        # Connections that the server has announced to end, and those that ended without a word.
        self.announced = collections.Counter()
        self.unannounced = collections.Counter()
        self.refused = []
        self.created = []
        self.behind = 0.0
        self.booked = []
        self.sockets = []

    def counts(self):
        return {
            "sent": self.sent,
            "answered": self.answered,
            "owed": self.sent - self.answered - len(self.lost) - self.untouched,
            "lost": self.lost[:20],
            "lostCount": len(self.lost),
            "doubled": self.doubled,
            "mixed": self.mixed,
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "again": self.again,
            "untouched": self.untouched,
            "connections": dict(self.connections),
            "announced": dict(self.announced),
            "unannounced": dict(self.unannounced),
            "refused": self.refused[:20],
            "refusedCount": len(self.refused),
            "created": self.created,
            "booked": len(self.booked),
            "sockets": [socket.counts(self.booked) for socket in self.sockets],
            "behindMilliseconds": int(self.behind * 1000),
        }


class Request:
    """One request, from its first byte to its answer."""

    def __init__(self, number, method, path, body=None, key=None):
        self.id = f"load-{number}"
        self.method = method
        self.path = path
        self.body = body
        self.key = key
        self.is_answered = False
        self.is_sent = False


class Load:
    def __init__(self, configuration):
        self.host = configuration["host"]
        self.address = configuration["address"]
        self.port = configuration["port"]
        self.token = configuration["token"]
        self.rate = configuration["rate"]
        self.family = configuration["family"]
        # How many of ten requests go over HTTP/2.
        self.share = configuration.get("http2", 0)
        self.sources = configuration.get("connections", 16)
        self.ledger = Ledger()
        self.number = 0
        self.is_stopping = False
        self.settled = asyncio.Event()
        # The calendar that is booked and followed, if any.
        self.events = configuration.get("events")
        self.http1 = Http1Pool(self)
        self.http2 = Http2Pool(self)

    def make(self):
        """A health check mostly, a read of a clinic often, a write sometimes."""
        number = self.number
        self.number += 1
        if number % 50 == 7:
            key = f"{self.family}-{number}"
            body = json.dumps(
                {
                    "givenName": "Load",
                    "familyName": self.family,
                    "birthDate": "1990-01-01",
                    "sex": "other",
                    "mrn": key,
                }
            ).encode()
            return Request(number, "POST", "/v1/patients", body, key)
        if self.events and number % 50 == 27:
            # No two overlap, in this run or another.
            start = datetime.datetime.fromisoformat(self.events["from"]) + datetime.timedelta(
                minutes=30 * (number // 50)
            )
            body = json.dumps(
                {
                    "patientId": self.events["patient"],
                    "practitionerId": self.events["practitioner"],
                    "startsAt": start.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "endsAt": (start + datetime.timedelta(minutes=20)).strftime(
                        "%Y-%m-%dT%H:%M:%SZ"
                    ),
                }
            ).encode()
            return Request(
                number, "POST", "/v1/appointments", body, f"{self.family}-book-{number}"
            )
        return Request(number, "GET", "/v1/auth/me" if number % 5 == 0 else "/health")

    async def run(self):
        begin = time.monotonic()
        number = 0
        while not self.is_stopping:
            due = begin + number / self.rate
            now = time.monotonic()
            if now < due:
                # The schedule of an open loop: requests are due at fixed times, whatever becomes of those before.
                await asyncio.sleep(due - now)
                continue
            self.ledger.behind = max(self.ledger.behind, now - due)
            self.submit(self.make())
            number += 1
            if number % 64 == 0:
                # Open loop: being late must not keep the answers from being read.
                await asyncio.sleep(0)
        try:
            await asyncio.wait_for(self.settle(), PATIENCE)
        except asyncio.TimeoutError:
            pass

    async def settle(self):
        self.forget(lambda request: not request.is_sent)
        while self.ledger.sent - self.ledger.answered - len(
            self.ledger.lost
        ) > self.ledger.untouched:
            self.settled.clear()
            await self.settled.wait()

    async def reach(self, count):
        while self.ledger.answered < count:
            self.settled.clear()
            await self.settled.wait()

    def submit(self, request):
        number = int(request.id.rsplit("-", 1)[1])
        (self.http2 if number % 10 < self.share else self.http1).submit(request)

    # What connections report.

    def sent(self, request):
        if request.is_sent:
            self.ledger.again += 1
        else:
            request.is_sent = True
            self.ledger.sent += 1

    def answered(self, request, status, identifier, content):
        if request.is_answered:
            self.ledger.doubled += 1
            return
        request.is_answered = True
        self.ledger.answered += 1
        self.ledger.statuses[status] += 1
        if identifier != request.id:
            self.ledger.mixed += 1
        if request.key is not None and status == 201:
            made = self.ledger.booked if "appointments" in request.path else self.ledger.created
            made.append(json.loads(content)["id"])
        self.settled.set()

    def lost(self, request, reason):
        self.ledger.lost.append(f"{time.time():.3f} {request.id} {request.path}: {reason}")
        self.settled.set()

    def refused(self, reason):
        """A connection could not be opened; what it was for waits for the next."""
        self.ledger.refused.append(f"{time.time():.3f} {reason}")
        if self.is_stopping:
            self.forget(lambda request: True)

    def forget(self, matches):
        """Drops what waits for a connection."""
        for pool in (self.http1, self.http2):
            kept = [request for request in pool.waiting if not matches(request)]
            dropped = [request for request in pool.waiting if matches(request)]
            self.ledger.untouched += sum(request.is_sent for request in dropped)
            pool.waiting = collections.deque(kept)
        self.settled.set()


class Http1Pool:
    """Connections that carry one request at a time; the one that has waited longest is next."""

    def __init__(self, load):
        self.load = load
        self.idle = collections.deque()
        self.waiting = collections.deque()
        # Connections that are open or being opened, and those that are open.
        self.count = 0
        self.live = 0

    def submit(self, request):
        self.waiting.append(request)
        self.work()

    def work(self):
        while self.waiting and self.idle:
            self.idle.popleft().send(self.waiting.popleft())
        # All are busy and requests wait: more connections, as a browser or a proxy would open.
        while self.count < CONNECTIONS_MAX and (
            self.count < self.load.sources or self.opening < len(self.waiting)
        ):
            self.open()

    @property
    def opening(self):
        return self.count - self.live

    def open(self):
        self.count += 1
        asyncio.ensure_future(self.connect())

    async def connect(self):
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(
                loop.create_connection(
                    lambda: Http1Connection(self), self.load.address, self.load.port
                ),
                PATIENCE,
            )
        except (OSError, asyncio.TimeoutError) as error:
            self.count -= 1
            self.load.refused(repr(error))
            await asyncio.sleep(RETRY_PAUSE)
            self.work()

    def closed(self, connection):
        self.count -= 1
        self.live -= 1
        if connection in self.idle:
            self.idle.remove(connection)
        self.work()


class Http1Connection(asyncio.Protocol):
    def __init__(self, pool):
        self.pool = pool
        self.load = pool.load
        self.transport = None
        self.request = None
        self.received = b""
        self.is_last = False

    def connection_made(self, transport):
        self.transport = transport
        self.pool.live += 1
        self.load.ledger.connections["http1"] += 1
        self.pool.idle.append(self)
        self.pool.work()

    def send(self, request):
        self.request = request
        lines = [
            f"{request.method} {request.path} HTTP/1.1",
            f"Host: {self.load.host}",
            f"X-Request-Id: {request.id}",
        ]
        if request.path != "/health":
            lines.append(f"Authorization: Bearer {self.load.token}")
        if request.body is not None:
            lines.append("Content-Type: application/json")
            lines.append(f"Content-Length: {len(request.body)}")
            lines.append(f"Idempotency-Key: {request.key}")
        head = "\r\n".join(lines) + "\r\n\r\n"
        self.load.sent(request)
        self.transport.write(head.encode() + (request.body or b""))

    def data_received(self, data):
        self.received += data
        while True:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            lines = self.received[:end].decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ", 2)[1])
            fields = {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                fields[name.lower()] = value.strip()
            if status < 200:
                self.received = self.received[end + 4 :]
                continue
            count = int(fields.get("content-length", "0"))
            if len(self.received) < end + 4 + count:
                return
            content = self.received[end + 4 : end + 4 + count]
            self.received = self.received[end + 4 + count :]
            self.finish(status, fields, content)

    def finish(self, status, fields, content):
        request, self.request = self.request, None
        if request is None:
            self.load.ledger.doubled += 1
            return
        if fields.get("connection", "").lower() == "close":
            self.is_last = True
            self.load.ledger.announced["http1"] += 1
        self.load.answered(request, status, fields.get("x-request-id"), content)
        if self.is_last:
            self.transport.close()
        else:
            self.pool.idle.append(self)
            self.pool.work()

    def connection_lost(self, error):
        if self.request is not None:
            self.load.lost(self.request, f"HTTP/1.1 connection ended: {error!r}")
            self.request = None
        elif not self.is_last:
            self.load.ledger.unannounced["http1"] += 1
        self.pool.closed(self)


class Http2Pool:
    """Few connections that carry many requests; one that is going away gets no more."""

    SIZE = 4

    def __init__(self, load):
        self.load = load
        self.connections = []
        self.opening = 0
        self.waiting = collections.deque()
        self.next = 0

    def submit(self, request):
        self.waiting.append(request)
        self.work()

    def work(self):
        while len(self.connections) + self.opening < self.SIZE:
            self.opening += 1
            asyncio.ensure_future(self.connect())
        while self.waiting and self.connections:
            self.next += 1
            free = [one for one in self.connections if one.has_room()]
            if not free:
                return
            free[self.next % len(free)].send(self.waiting.popleft())

    async def connect(self):
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(
                loop.create_connection(
                    lambda: Http2Connection(self), self.load.address, self.load.port
                ),
                PATIENCE,
            )
        except (OSError, asyncio.TimeoutError) as error:
            self.opening -= 1
            self.load.refused(repr(error))
            await asyncio.sleep(RETRY_PAUSE)
            self.work()


class Http2Connection(asyncio.Protocol):
    """HTTP/2 by prior knowledge.

    The library takes GOAWAY for the end of a connection, while streams up to the last one that it names go on (RFC
    9113 6.8). So frames are cut here, and that one is read here.
    """

    GOAWAY = 7
    NEVER = 2**31 - 1

    def __init__(self, pool):
        self.pool = pool
        self.load = pool.load
        self.transport = None
        self.received = b""
        self.streams = {}
        self.last = None
        self.session = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )

    def connection_made(self, transport):
        self.transport = transport
        self.load.ledger.connections["http2"] += 1
        self.session.initiate_connection()
        self.flush()
        self.pool.opening -= 1
        self.pool.connections.append(self)
        self.pool.work()

    def has_room(self):
        return len(self.streams) < min(100, self.session.remote_settings.max_concurrent_streams)

    def flush(self):
        data = self.session.data_to_send()
        if data:
            self.transport.write(data)

    def send(self, request):
        stream = self.session.get_next_available_stream_id()
        fields = [
            (":method", request.method),
            (":scheme", "http"),
            (":authority", self.load.host),
            (":path", request.path),
            ("x-request-id", request.id),
        ]
        if request.path != "/health":
            fields.append(("authorization", f"Bearer {self.load.token}"))
        if request.body is not None:
            fields.append(("content-type", "application/json"))
            fields.append(("content-length", str(len(request.body))))
            fields.append(("idempotency-key", request.key))
        self.streams[stream] = [request, None, None, b""]
        self.load.sent(request)
        self.session.send_headers(stream, fields, end_stream=request.body is None)
        if request.body is not None:
            self.session.send_data(stream, request.body, end_stream=True)
        self.flush()

    def data_received(self, data):
        self.received += data
        while len(self.received) >= 9:
            count = int.from_bytes(self.received[:3], "big")
            if len(self.received) < 9 + count:
                break
            frame, self.received = self.received[: 9 + count], self.received[9 + count :]
            if frame[3] == self.GOAWAY:
                self.going(int.from_bytes(frame[9:13], "big") & self.NEVER)
                continue
            for event in self.session.receive_data(frame):
                self.handle(event)
        self.flush()
        if self.last is not None and not self.streams:
            self.transport.close()

    def handle(self, event):
        entry = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.DataReceived):
            self.session.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if entry is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            fields = dict(event.headers)
            entry[1] = int(fields[":status"])
            entry[2] = fields.get("x-request-id")
        elif isinstance(event, h2.events.DataReceived):
            entry[3] += event.data
        elif isinstance(event, h2.events.StreamEnded):
            del self.streams[event.stream_id]
            self.load.answered(entry[0], entry[1], entry[2], entry[3])
            self.pool.work()
        elif isinstance(event, h2.events.StreamReset):
            del self.streams[event.stream_id]
            if event.error_code == 7:
                # REFUSED_STREAM: not touched (RFC 9113 8.7).
                self.pool.submit(entry[0])
            elif not entry[0].is_answered:
                self.load.lost(entry[0], f"HTTP/2 stream reset: {event.error_code}")

    def going(self, last):
        if self.last is None:
            self.load.ledger.announced["http2"] += 1
            self.leave()
        self.last = last
        for stream in [stream for stream in self.streams if stream > last]:
            self.pool.submit(self.streams.pop(stream)[0])

    def leave(self):
        if self in self.pool.connections:
            self.pool.connections.remove(self)
            self.pool.work()

    def connection_lost(self, error):
        for entry in self.streams.values():
            self.load.lost(entry[0], f"HTTP/2 connection ended: {error!r}, last {self.last}")
        self.streams = {}
        if self.last is None:
            self.load.ledger.unannounced["http2"] += 1
        self.leave()


class Follower:
    """A socket that follows a calendar and comes back when its server is replaced."""

    def __init__(self, load):
        self.load = load
        self.seen = collections.Counter()
        self.last = None
        self.told = set()
        self.resyncs = 0
        self.repeated = 0
        self.codes = collections.Counter()
        self.is_following = asyncio.Event()
        self.arrived = asyncio.Event()

    def counts(self, booked):
        return {
            "told": len(self.seen),
            "missed": [one for one in booked if one not in self.seen][:20],
            "resyncs": self.resyncs,
            "repeated": self.repeated,
            "codes": {str(code): count for code, count in self.codes.items()},
        }

    async def run(self):
        while True:
            try:
                await self.follow(await self.open())
            except (OSError, asyncio.IncompleteReadError) as error:
                self.codes[type(error).__name__] += 1
                await asyncio.sleep(RETRY_PAUSE)

    async def ticket(self):
        reader, writer = await asyncio.open_connection(self.load.address, self.load.port)
        writer.write(
            (
                f"POST /v1/events/tickets HTTP/1.1\r\nHost: {self.load.host}\r\n"
                f"Authorization: Bearer {self.load.token}\r\nContent-Length: 0\r\n"
                "Connection: close\r\n\r\n"
            ).encode()
        )
        answer = await reader.read()
        writer.close()
        head, _, content = answer.partition(b"\r\n\r\n")
        if b" 201 " not in head.split(b"\r\n")[0]:
            raise OSError(f"no ticket: {head!r}")
        return json.loads(content)["ticket"]

    async def open(self):
        ticket = await self.ticket()
        reader, writer = await asyncio.open_connection(self.load.address, self.load.port)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            (
                f"GET /v1/events/ws?ticket={ticket} HTTP/1.1\r\nHost: {self.load.host}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: hc.events.v1\r\n\r\n"
            ).encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise OSError(f"no socket: {head!r}")
        self.write(
            writer,
            1,
            json.dumps(
                {
                    "type": "subscribe",
                    "topics": ["calendar:" + self.load.events["practitioner"]],
                    "after": self.last,
                }
            ).encode(),
        )
        return reader, writer

    def write(self, writer, opcode, content):
        """One masked frame (RFC 6455 5.2)."""
        mask = os.urandom(4)
        length = (
            bytes([0x80 | len(content)])
            if len(content) < 126
            else bytes([0x80 | 126]) + struct.pack(">H", len(content))
        )
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(content))
        writer.write(bytes([0x80 | opcode]) + length + mask + masked)

    async def follow(self, stream):
        reader, writer = stream
        while True:
            first, second = await reader.readexactly(2)
            count = second & 127
            if count == 126:
                count = struct.unpack(">H", await reader.readexactly(2))[0]
            elif count == 127:
                count = struct.unpack(">Q", await reader.readexactly(8))[0]
            content = await reader.readexactly(count)
            opcode = first & 15
            if opcode == 1:
                self.hear(json.loads(content))
            elif opcode == 9:
                self.write(writer, 10, content)
            elif opcode == 8:
                self.codes[struct.unpack(">H", content[:2])[0] if content else 1005] += 1
                self.write(writer, 8, content[:2])
                writer.close()
                return

    def hear(self, message):
        kind = message["type"]
        if kind == "subscribed":
            self.last = max(self.last or 0, message["sequence"])
            self.is_following.set()
        elif kind == "resync":
            self.resyncs += 1
            self.last = max(self.last or 0, message["sequence"])
        elif kind == "event":
            self.last = max(self.last or 0, message["sequence"])
            if message["eventId"] in self.told:
                self.repeated += 1
            self.told.add(message["eventId"])
            self.seen[message["id"]] += 1
        elif kind == "error":
            raise OSError(f"refused: {message}")
        self.arrived.set()

    async def catch_up(self, booked):
        while any(one not in self.seen for one in booked):
            self.arrived.clear()
            await self.arrived.wait()


async def main():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    load = Load(json.loads(await reader.readline()))
    if load.share and h2 is None:
        sys.exit("load.py: python3-h2 is missing")
    followers = [Follower(load) for _ in range(load.events["sockets"] if load.events else 0)]
    load.ledger.sockets = followers
    following = [asyncio.ensure_future(follower.run()) for follower in followers]
    for follower in followers:
        await asyncio.wait_for(follower.is_following.wait(), PATIENCE)
    running = asyncio.ensure_future(load.run())

    def tell():
        print(json.dumps(load.ledger.counts()), flush=True)

    while True:
        line = (await reader.readline()).strip()
        if line == b"mark":
            tell()
        elif line.startswith(b"reach "):
            await asyncio.wait_for(load.reach(int(line.split()[1])), PATIENCE)
            tell()
        elif line in (b"stop", b""):
            break
    load.is_stopping = True
    await running
    try:
        for follower in followers:
            await asyncio.wait_for(follower.catch_up(load.ledger.booked), PATIENCE)
    except asyncio.TimeoutError:
        pass
    for task in following:
        task.cancel()
    counts = load.ledger.counts()
    if counts["owed"] > 0:
        load.ledger.lost.append(f"{counts['owed']} requests were not answered in {PATIENCE} s")
    tell()


asyncio.run(main())
