"""What the clients of benchmarks have in common: a clinic to whose API requests go, and commands of hc-admin."""

import asyncio
import json
import random
import time

PATIENCE = 30.0  # seconds


class Clinic:
    """Requests on connections of their own or on those that are idle, over HTTP/1.1."""

    def __init__(self, path, port):
        """PATH is what `hc-admin tenant create --json` printed."""
        owner = json.load(open(path))
        self.credentials = {"email": owner["ownerEmail"], "password": owner["ownerPassword"]}
        self.slug, self.token = owner["slug"], None
        self.host, self.port, self.idle, self.number = f"{self.slug}.localhost", port, [], 0

    async def ask(self, method, path, body=None, key=None):
        """Returns status and content. KEY is the idempotency key of what would otherwise be done twice."""
        is_new = not self.idle
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port) if is_new else self.idle.pop()
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
        if not line and not is_new:
            # It had been idle for too long (RFC 9112, 9.5): what is asked for may be asked for again.
            writer.close()
            return await self.ask(method, path, body, key)
        status = int(line.split()[1])
        length, close = 0, False
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            if name.lower() == "content-length":
                length = int(value)
            if name.lower() == "connection" and "close" in value:
                close = True
        answer = await reader.readexactly(length)
        if close:
            writer.close()
        else:
            self.idle.append((reader, writer))
        return status, answer

    async def login(self):
        """From here on requests are the owner's."""
        status, answer = await self.ask("POST", "/v1/auth/login", self.credentials)
        if status != 200:
            raise SystemExit(f"{self.host}: login answered {status}")
        self.token = json.loads(answer)["accessToken"]

    async def identifiers(self, path):
        """Of the first things that PATH lists."""
        _, answer = await self.ask("GET", path)
        return [item["id"] for item in json.loads(answer)["items"]]


class Ledger(Clinic):
    """A clinic that is read and written to, and what of it was acknowledged: each write is a patient with a name of its own."""

    def __init__(self, path, port):
        super().__init__(path, port)
        self.run = f"{random.getrandbits(48):012x}"
        self.acknowledged, self.failures, self.times = {}, [], []

    async def prepare(self):
        await self.login()
        self.patients = await self.identifiers("/v1/patients?limit=50")

    async def one(self, due, is_write):
        self.number += 1
        name = f"{self.run}-{self.number}"
        try:
            if is_write:
                status, answer = await asyncio.wait_for(self.ask("POST", "/v1/patients", {
                    "givenName": "Bench", "familyName": f"Ledger{name}", "birthDate": "1980-01-01", "sex": "unknown"},
                    key=f"ledger-{name}"), PATIENCE)
                if status == 201:
                    self.acknowledged[name] = json.loads(answer)["id"]
            else:
                status, answer = await asyncio.wait_for(
                    self.ask("GET", f"/v1/patients/{random.choice(self.patients)}"), PATIENCE)
            if status >= 300:
                self.failures.append((due, status, answer[:200].decode(errors="replace")))
        except Exception as error:
            self.failures.append((due, 0, repr(error)))
        self.times.append((due, time.monotonic() - due, is_write))

    async def verify(self):
        """How many acknowledged writes are lost, and how many are there twice."""
        seen, doubled, cursor = {}, 0, ""
        while True:
            status, answer = await self.ask("GET", f"/v1/patients?familyName=Ledger{self.run}&limit=200{cursor}")
            if status == 429:
                await asyncio.sleep(0.2)
                continue
            if status != 200:
                raise SystemExit(f"the ledger cannot be read: {status} {answer[:200]}")
            page = json.loads(answer)
            for item in page["items"]:
                name = item["familyName"].removeprefix("Ledger")
                doubled += name in seen
                seen[name] = item["id"]
            if not page.get("nextCursor"):
                break
            cursor = f"&cursor={page['nextCursor']}"
        lost = sum(seen.get(name) != identifier for name, identifier in self.acknowledged.items())
        return lost, doubled


def quantile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


async def run(command, *words):
    """What hc-admin prints with --json; COMMAND is a list. Ends the benchmark if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: exit {process.returncode}\n{out.decode()}{err.decode()}")
    return json.loads(out)


async def load(next_request, rate, stop):
    """Begins RATE requests a second by the clock until STOP is set, whether those before them were answered or not.
    NEXT_REQUEST(number, due) makes one; returns when all are answered."""
    due, tasks, count = time.monotonic(), set(), 0
    while not stop.is_set():
        due += 1 / rate
        await asyncio.sleep(max(0, due - time.monotonic()))
        count += 1
        task = asyncio.create_task(next_request(count, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if tasks:
        await asyncio.wait(tasks)
