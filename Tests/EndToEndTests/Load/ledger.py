#!/usr/bin/env python3
"""Clients of several clinics that keep a ledger of what was acknowledged, whatever happens to the server.

Each writer registers one patient after the other: the same request under the same key until it is acknowledged, as a
client that behaves would, then it reads the patient back. At the end the ledger is held against what the clinic lists:
what was acknowledged and is not there is lost, what is there twice is doubled.

The first line on standard input is the configuration, a JSON object: address, port, run (a name of its own for these
writes) and clinics, each with slug, host, email, password and writers. After that: `mark` prints what was seen so far as
one line of JSON, `reach N SECONDS` does so when every clinic has acknowledged N writes more than now, or SECONDS have
passed, `stop` begins nothing more, waits for what is owed, compares, prints everything and ends.
"""

import asyncio
import collections
import json
import sys
import time

# How long one answer may take: a server that is stopped gives none.
ANSWER_PATIENCE = 15.0
# How long a write is tried again before it is given up when the load is to end.
STOP_PATIENCE = 60.0
# What a client lets pass before it asks again: its manners, not a wait for something.
PAUSE = 0.05
# Between two writes of a writer.
REST = 0.15
# In place of the status of an answer: the host is no clinic to the worker that gave it.
NOT_SERVED = 0


class Clinic:
    def __init__(self, configuration, clinic):
        self.address, self.port = configuration["address"], configuration["port"]
        self.slug, self.host = clinic["slug"], clinic["host"]
        self.family = "Ledger" + configuration["run"]
        self.credentials = {"email": clinic["email"], "password": clinic["password"]}
        self.writers = clinic["writers"]
        self.token, self.idle, self.number = None, [], 0
        self.is_stopping, self.stop_at = False, None
        self.acknowledged, self.begun = {}, set()
        self.failures, self.samples, self.unread = collections.Counter(), [], []
        self.last, self.longest = None, 0.0
        self.advanced = asyncio.Event()

    async def ask(self, method, path, body=None, key=None):
        if self.idle:
            connection = self.idle.pop()
        else:
            connection = await asyncio.open_connection(self.address, self.port)
        is_kept = False
        try:
            status, answer, goes_on = await self.exchange(connection, method, path, body, key)
            if method == "GET" and status == 404 and goes_on:
                # A clinic that is not served, and a patient that there is not, are one and the same answer: the worker
                # that gave it tells them apart.
                served, _, goes_on = await self.exchange(connection, "GET", "/v1/clinic")
                if served == 404:
                    status = NOT_SERVED
            is_kept = goes_on
            return status, answer
        finally:
            if is_kept:
                self.idle.append(connection)
            else:
                connection[1].close()

    async def exchange(self, connection, method, path, body=None, key=None):
        """A status, an answer, and whether the connection may be asked again."""
        reader, writer = connection
        content = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", f"Content-Length: {len(content)}"]
        if body is not None:
            head.append("Content-Type: application/json")
        if self.token is not None:
            head.append(f"Authorization: Bearer {self.token}")
        if key is not None:
            head.append(f"Idempotency-Key: {key}")
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + content)
        line = await reader.readline()
        if not line:
            raise ConnectionError("the connection ended without an answer")
        status, length, is_kept = int(line.split()[1]), 0, True
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            if name.lower() == "content-length":
                length = int(value)
            if name.lower() == "connection" and "close" in value:
                is_kept = False
        return status, await reader.readexactly(length), is_kept

    async def attempt(self, method, path, body=None, key=None):
        """A status and an answer; the status is 0 if there was none."""
        try:
            return await asyncio.wait_for(self.ask(method, path, body, key), ANSWER_PATIENCE)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError, IndexError) as error:
            return 0, repr(error).encode()

    def failed(self, what, status, answer):
        self.failures[str(status)] += 1
        if len(self.samples) < 6:
            self.samples.append(f"{time.time():.3f} {what}: {status} {answer[:300].decode(errors='replace')}")

    async def prepare(self):
        status, answer = await self.attempt("POST", "/v1/auth/login", self.credentials)
        if status != 200:
            raise SystemExit(f"{self.slug}: login answered {status}: {answer[:300]}")
        self.token = json.loads(answer)["accessToken"]
        self.last = time.monotonic()

    async def register(self):
        self.number += 1
        name = f"{self.family}x{self.number}"
        self.begun.add(name)
        patient = {"givenName": name, "familyName": self.family, "birthDate": "1980-01-01", "sex": "unknown"}
        while True:
            status, answer = await self.attempt("POST", "/v1/patients", patient, key=name)
            if status == 201:
                break
            # 409: an earlier try is at it still.
            if status != 409:
                self.failed("write", status, answer)
            if self.stop_at is not None and time.monotonic() > self.stop_at:
                return
            await asyncio.sleep(PAUSE)
        identifier = json.loads(answer)["id"]
        self.acknowledged[name] = identifier
        now = time.monotonic()
        self.longest, self.last = max(self.longest, now - self.last), now
        self.advanced.set()
        status, answer = await self.attempt("GET", f"/v1/patients/{identifier}")
        if status == 404:
            self.unread.append(name)
        elif status != 200:
            self.failed("read", status, answer)

    async def write(self):
        while not self.is_stopping:
            await self.register()
            await asyncio.sleep(REST)

    async def reach(self, count):
        while len(self.acknowledged) < count:
            self.advanced.clear()
            await self.advanced.wait()

    async def listed(self):
        """What the clinic has: pairs of name and id."""
        found, cursor, limit = [], "", time.monotonic() + STOP_PATIENCE
        while True:
            status, answer = await self.attempt("GET", f"/v1/patients?familyName={self.family}&limit=200{cursor}")
            if status != 200:
                if time.monotonic() > limit:
                    raise SystemExit(f"{self.slug}: the patients cannot be listed: {status} {answer[:300]}")
                await asyncio.sleep(PAUSE)
                continue
            page = json.loads(answer)
            found += [(item["givenName"], item["id"]) for item in page["items"]]
            if not page.get("nextCursor"):
                return found
            cursor = f"&cursor={page['nextCursor']}"

    async def compare(self):
        found = await self.listed()
        names, pairs = collections.Counter(name for name, _ in found), set(found)
        return {
            "lost": [name for name, identifier in self.acknowledged.items() if (name, identifier) not in pairs][:20],
            "doubled": [name for name, count in names.items() if count > 1][:20],
            "alien": [name for name in names if name not in self.begun][:20],
        }

    def counts(self):
        return {
            "acknowledged": len(self.acknowledged), "failures": dict(self.failures), "samples": self.samples,
            "unread": self.unread[:20],
            "longestMilliseconds": int(max(self.longest, time.monotonic() - self.last) * 1000),
        }


async def main():
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    configuration = json.loads(await commands.readline())
    clinics = [Clinic(configuration, clinic) for clinic in configuration["clinics"]]
    for clinic in clinics:
        await clinic.prepare()
    writers = [asyncio.create_task(clinic.write()) for clinic in clinics for _ in range(clinic.writers)]

    def report(more=None):
        print(json.dumps({
            clinic.slug: clinic.counts() | (more or {}).get(clinic.slug, {}) for clinic in clinics}), flush=True)

    while line := (await commands.readline()).decode().split():
        if line[0] == "mark":
            report()
        elif line[0] == "reach":
            wanted = [(clinic, len(clinic.acknowledged) + int(line[1])) for clinic in clinics]
            try:
                await asyncio.wait_for(
                    asyncio.gather(*(clinic.reach(count) for clinic, count in wanted)), float(line[2]))
            except asyncio.TimeoutError:
                pass
            report({clinic.slug: {"isServed": len(clinic.acknowledged) >= count} for clinic, count in wanted})
        elif line[0] == "stop":
            for clinic in clinics:
                clinic.is_stopping, clinic.stop_at = True, time.monotonic() + STOP_PATIENCE
            await asyncio.gather(*writers)
            counts = {clinic.slug: clinic.counts() for clinic in clinics}
            report({clinic.slug: await clinic.compare() | counts[clinic.slug] for clinic in clinics})
            return


asyncio.run(main())
