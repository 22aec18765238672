"""A clinic that is moved to and fro under load, with a ledger of what was acknowledged.

    move_clients.py PORT DIRECTORY MOVES RATE SHARD SHARD TENANT COMMAND...

DIRECTORY has moved.json and neighbour.json, as `hc-admin tenant create --json` printed them, and pipe.json, what a plain
copy of TENANT took, as the shell function copy_by_pipe makes it. COMMAND is hc-admin. RATE
requests a second go to the clinic that is moved, one third of them writes, and a tenth of RATE to its neighbour on the
first shard. Requests begin by the clock, whether those before them were answered or not. Moves alternate with rests of
the same length, so that what else the machine does is in both.
"""

import asyncio
import datetime
import json
import random
import sys
import time

PATIENCE = 30.0


class Clinic:
    def __init__(self, path, port):
        owner = json.load(open(path))
        self.credentials = {"email": owner["ownerEmail"], "password": owner["ownerPassword"]}
        self.slug = owner["slug"]
        self.host, self.port, self.idle, self.number = f"{self.slug}.localhost", port, [], 0
        self.run = f"{random.getrandbits(48):012x}"
        self.acknowledged, self.unknown, self.failures, self.times = {}, set(), [], []

    async def ask(self, method, path, body=None, key=None):
        is_new = not self.idle
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port) if is_new else self.idle.pop()
        content = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", f"Content-Length: {len(content)}"]
        if body is not None:
            head.append("Content-Type: application/json")
        if hasattr(self, "token"):
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

    async def prepare(self):
        status, answer = await self.ask("POST", "/v1/auth/login", self.credentials)
        if status != 200:
            raise SystemExit(f"{self.host}: login answered {status}")
        self.token = json.loads(answer)["accessToken"]
        _, answer = await self.ask("GET", "/v1/patients?limit=50")
        self.patients = [item["id"] for item in json.loads(answer)["items"]]

    async def one(self, due, is_write):
        began = time.monotonic()
        self.number += 1
        number = self.number
        name = f"{self.run}-{number}"
        try:
            if is_write:
                self.unknown.add(name)
                status, answer = await asyncio.wait_for(self.ask("POST", "/v1/patients", {
                    "givenName": "Bench", "familyName": f"Ledger{name}", "birthDate": "1980-01-01", "sex": "unknown"},
                    key=f"ledger-{name}"), PATIENCE)
                if status == 201:
                    self.unknown.discard(name)
                    self.acknowledged[name] = json.loads(answer)["id"]
            else:
                status, answer = await asyncio.wait_for(
                    self.ask("GET", f"/v1/patients/{random.choice(self.patients)}"), PATIENCE)
            if status >= 300:
                self.failures.append((due, status, answer[:200].decode(errors="replace")))
        except Exception as error:
            self.failures.append((due, 0, repr(error)))
        self.times.append((due, time.monotonic() - due, is_write))

    async def load(self, rate, stop):
        due, tasks, count = time.monotonic(), set(), 0
        while not stop.is_set():
            due += 1 / rate
            await asyncio.sleep(max(0, due - time.monotonic()))
            count += 1
            task = asyncio.create_task(self.one(due, count % 3 == 0))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)

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
    process = await asyncio.create_subprocess_exec(
        *command, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: exit {process.returncode}\n{out.decode()}{err.decode()}")
    return json.loads(out)


async def main():
    port, directory, moves, rate = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    shards, tenant, command = sys.argv[5:7], sys.argv[7], sys.argv[8:]
    moved, beside = (Clinic(f"{directory}/{name}.json", port) for name in ("moved", "neighbour"))
    for clinic in (moved, beside):
        await clinic.prepare()
    stop = asyncio.Event()
    loads = [asyncio.create_task(moved.load(rate, stop)), asyncio.create_task(beside.load(max(1, rate / 10), stop))]
    await asyncio.sleep(2)
    begin = time.monotonic()
    await run(["bash", "-c", 'copy_by_pipe "$@"', "copy"], tenant)
    piped = [(begin, time.monotonic())]
    await asyncio.sleep(2)
    spans, rests, pauses, slowest, around, lengths, copies, parts, tries = [], [], [], [], [], [], [], [], []
    phases = {"copying": [], "comparing": [], "after the pause": []}
    now = await run(command, "tenant", "show", moved.slug, "--json")
    for number in range(moves):
        target = shards[0] if now["shard"] != shards[0] else shards[1]
        begin, offset = time.monotonic(), time.time() - time.monotonic()
        answer = await run(command, "tenant", "move", moved.slug, "--to", target, "--wait", "--soak", "0s", "--json")
        end = time.monotonic()
        if answer["state"] != "done":
            raise SystemExit(f"the move ended as {answer['state']}: {answer['progress']}")
        now = {"shard": target}
        pauses.append(answer["progress"]["pauseMicroseconds"] / 1000)
        tries.append(answer["progress"]["pauseTries"])
        at = [datetime.datetime.fromisoformat(answer["progress"][name].replace("Z", "+00:00"))
              for name in ("gatedAt", "fencedAt", "committedAt", "openedAt")]
        parts.append([(end - begin).total_seconds() * 1000 for begin, end in zip(at, at[1:])])
        gated, opened = (at[place].timestamp() - offset for place in (0, 3))
        around.append((gated - 0.05, opened))
        copied = datetime.datetime.fromisoformat(answer["progress"]["copyStartedAt"].replace("Z", "+00:00"))
        copied = copied.timestamp() - offset + answer["progress"]["copyMilliseconds"] / 1000
        for phase, span in (("copying", (begin, copied)), ("comparing", (copied, gated)), ("after the pause", (opened, end))):
            phases[phase].append(span)
        copies.append(answer["progress"]["rows"] * 1000 / answer["progress"]["copyMilliseconds"])
        print(f"    move {number + 1}: {answer['progress']['rows']} rows, copy {copied - begin:.1f} s, compare {gated - copied:.1f} s, "
              f"pause {pauses[-1]:.1f} ms ({', '.join(f'{part:.1f}' for part in parts[-1])}; "
              f"{answer['progress']['verification']['rowsInPause']} rows), after it {end - opened:.1f} s", flush=True)
        spans.append((begin, end))
        lengths.append(end - begin)
        await asyncio.sleep(min(5, end - begin))
        rests.append((end, time.monotonic()))
    await asyncio.sleep(1)
    stop.set()
    await asyncio.gather(*loads)

    def within(clinic, areas, is_write=None):
        return [took * 1000 for due, took, wrote in clinic.times if (is_write is None or wrote == is_write)
                and any(begin <= due < end for begin, end in areas)]

    usual = quantile(within(moved, rests, True), 0.5)
    # Those that met the pause; and for comparison all of the move, and of a rest of the same length.
    for span in around:
        slowest.append(max(within(moved, [span], True), default=float("nan")) - usual)
    worst, worst_between = ([max(within(moved, [span], True), default=float("nan")) - usual for span in areas]
                            for areas in (spans, rests))
    print(f"{moves} moves of {answer['progress']['rows']} rows under {rate:.0f} requests/s, one third writes")
    print(f"a move: p50 {quantile(lengths, .5):.2f} s, longest {max(lengths):.2f} s; pauses tried: {sum(tries)}")
    pipe = json.load(open(f"{directory}/pipe.json"))
    print(f"COPY | COPY of {pipe['rows']} rows: {pipe['seconds']:.2f} s")
    pipe = pipe["rows"] / pipe["seconds"]
    print(f"copy: p50 {quantile(copies, .5):.0f} rows/s, {quantile(copies, .5) / pipe:.2f}x of COPY | COPY with nobody else"
          " there (target: at least 0.70)")
    print(f"pause, from gate to open, as the mover sees it: p50 {quantile(pauses, .5):.1f} ms, p99 {quantile(pauses, .99):.1f} ms")
    drain, check, commit = (quantile([part[n] for part in parts], .5) for n in range(3))
    print(f"    of it, p50: {drain:.1f} ms until the last change was there, {check:.1f} ms to compare and hand over, "
          f"{commit:.1f} ms to commit and open")
    print(f"pause, the slowest write of each move less the usual {usual:.1f} ms: "
          f"p50 {quantile(slowest, .5):.1f} ms (target: at most 20), p99 {quantile(slowest, .99):.1f} ms (target: at most 60)")
    print(f"    slowest write of the whole move less the usual: p50 {quantile(worst, .5):.1f} ms, p99 {quantile(worst, .99):.1f} ms; "
          f"between moves: p50 {quantile(worst_between, .5):.1f} ms, p99 {quantile(worst_between, .99):.1f} ms")
    for name, clinic in (("the clinic", moved), ("its neighbour", beside)):
        a, b = (quantile(within(clinic, areas), .95) for areas in (spans, rests))
        print(f"p95 of {name}: {a:.1f} ms while it is moved, {b:.1f} ms between: {a / b:.2f}x"
              + (" (target: at most 1.25)" if clinic is beside else ""))
    print("    of its neighbour by phase: " + ", ".join(
        f"{quantile(within(beside, areas), .95):.1f} ms {phase} ({sum(b - a for a, b in areas) / moves:.1f} s)"
        for phase, areas in phases.items())
        + f"; {quantile(within(beside, piped), .95):.1f} ms beside a plain COPY | COPY ({piped[0][1] - piped[0][0]:.1f} s)")
    verification = answer["progress"]["verification"]
    print(f"    last move: {verification['rounds']} rounds of {verification['chunks']} chunks, {verification['chunksInPause']} in the pause")
    failed = len(moved.failures) + len(beside.failures)
    print(f"failed requests: {failed} of {len(moved.times) + len(beside.times)}")
    for failure in (moved.failures + beside.failures)[:5]:
        print("   ", failure[1:])
    wrong = 0
    for name, clinic in (("the clinic", moved), ("its neighbour", beside)):
        lost, doubled = await clinic.verify()
        wrong += lost + doubled
        print(f"{name}: {len(clinic.acknowledged)} acknowledged writes, {lost} lost, {doubled} doubled")
    if failed or wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    asyncio.run(main())
