"""Twenty clinics at half of what their tier lets them, alone and beside one that asks for a hundred times its own.

    noisy_clients.py PORT SECONDS DIRECTORY

DIRECTORY has NAME.json of each clinic, as `hc-admin tenant create --json` printed it: noisy, quiet01 to quiet20.
Requests begin by the clock, whether those before them were answered or not, and are timed from when they should have
begun. The noise comes from a process of its own, which yields to the measurement. Measurements with and without noise
alternate, so that what else the machine does is in both.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time

ROUNDS = 3
# Units a second of the tier, and the costs of requests.
UNITS, READ, SEARCH, WRITE = 20, 1, 10, 20
PATIENCE = 30.0


class Clinic:
    def __init__(self, name, port, directory):
        owner = json.load(open(f"{directory}/{name}.json"))
        self.credentials = {"email": owner["ownerEmail"], "password": owner["ownerPassword"]}
        self.host, self.port, self.idle, self.number = f"{name}.localhost", port, [], 0

    async def ask(self, method, path, body=None, token=None):
        """One request on a connection of its own or one that is idle; returns status and content."""
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        content = b"" if body is None else json.dumps(body).encode()
        self.number += 1
        head = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", f"Content-Length: {len(content)}"]
        if body is not None:
            head.append("Content-Type: application/json")
        if token is not None:
            head.append(f"Authorization: Bearer {token}")
        if method == "POST" and token is not None:
            head.append(f"Idempotency-Key: noisy-{os.getpid()}-{self.number}-{random.getrandbits(40)}")
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + content)
        status = int((await reader.readline()).split()[1])
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
        _, answer = await self.ask("GET", "/v1/patients?limit=20", token=self.token)
        self.patients = [item["id"] for item in json.loads(answer)["items"]]
        _, answer = await self.ask("GET", "/v1/practitioners?limit=20", token=self.token)
        self.practitioners = [item["id"] for item in json.loads(answer)["items"]]

    def read(self):
        return self.ask("GET", f"/v1/patients/{random.choice(self.patients)}", token=self.token)

    def search(self):
        return self.ask("GET", "/v1/patients?limit=10", token=self.token)

    def write(self):
        start = time.time() + 86400 * random.randint(30, 30000)
        text = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) for at in (start, start + 300)]
        return self.ask("POST", "/v1/appointments", {
            "patientId": random.choice(self.patients), "practitionerId": random.choice(self.practitioners),
            "startsAt": text[0], "endsAt": text[1], "reason": "bench"}, token=self.token)

    def login(self):
        return self.ask("POST", "/v1/auth/login", dict(self.credentials, password="wrong-" + str(random.random())))


async def offer(streams, seconds, outcome):
    """Begins requests at their rates; calls outcome(seconds, status) for each."""
    tasks = set()

    async def one(make, due):
        try:
            status, _ = await asyncio.wait_for(make(), PATIENCE)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, IndexError, ValueError):
            status = 0
        outcome(time.monotonic() - due, status)

    async def stream(make, rate):
        due = time.monotonic() + random.random() / rate
        end = time.monotonic() + seconds
        while due < end:
            await asyncio.sleep(max(0, due - time.monotonic()))
            task = asyncio.ensure_future(one(make, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += 1 / rate

    await asyncio.gather(*(stream(make, rate) for make, rate in streams))
    while tasks:
        await asyncio.wait(set(tasks))


async def noise(port, directory):
    """A hundred times the tier, in each class by itself, until standard input ends."""
    os.nice(5)
    clinic = Clinic("noisy", port, directory)
    await clinic.prepare()
    print("ready", flush=True)
    counts = {}

    def outcome(_, status):
        counts[status] = counts.get(status, 0) + 1

    task = asyncio.ensure_future(offer(
        [(clinic.read, 100 * UNITS / READ / 4), (clinic.search, 100 * UNITS / SEARCH),
         (clinic.write, 100 * UNITS / WRITE), (clinic.login, 100 * UNITS / WRITE / 4)], 3600, outcome))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    task.cancel()
    print(json.dumps(counts), flush=True)
    os._exit(0)


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000 if values else float("nan")


async def measure(port, seconds, directory):
    clinics = [Clinic(f"quiet{number:02}", port, directory) for number in range(1, 21)]
    for clinic in clinics:
        await clinic.prepare()
    half = UNITS / 2
    streams = []
    for clinic in clinics:
        # Six units of ten are reads, two are searches, two are bookings.
        streams += [(clinic.read, half * 0.6 / READ), (clinic.search, half * 0.2 / SEARCH),
                    (clinic.write, half * 0.2 / WRITE)]
    latencies, refused, failed, noisy = {False: [], True: []}, 0, 0, {}
    await offer(streams, 3, lambda *_: None)
    for number in range(2 * ROUNDS):
        is_noisy = number % 2 == 1
        process = None
        if is_noisy:
            process = subprocess.Popen([sys.executable, __file__, str(port), "noise", directory],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            process.stdout.readline()
            # The burst that the tier saves up is over before anything is measured.
            await asyncio.sleep(3)

        def outcome(elapsed, status):
            nonlocal refused, failed
            latencies[is_noisy].append(elapsed)
            if status in (429, 503):
                refused += 1
            # A booking may find its time taken.
            elif status not in (200, 201, 409, 422):
                failed += 1

        await offer(streams, seconds, outcome)
        if process:
            process.stdin.close()
            for status, count in json.loads(process.stdout.readline() or "{}").items():
                noisy[status] = noisy.get(status, 0) + count
            process.wait()
    print(f"{'':34} {'requests':>10} {'p50 ms':>9} {'p99 ms':>9}")
    for is_noisy, name in ((False, "the others, alone"), (True, "the others, beside the noise")):
        values = latencies[is_noisy]
        print(f"{name:34} {len(values):>10} {quantile(values, .5):>9.2f} {quantile(values, .99):>9.2f}")
    total = sum(noisy.values())
    print(f"the noise: {total} requests, of them " + ", ".join(
        f"{count} answered {status if status != '0' else 'nothing'}" for status, count in sorted(noisy.items())))
    ratio = quantile(latencies[True], .99) / quantile(latencies[False], .99)
    print(f"the others' p99 with noise / without (target: at most 1.20): {ratio:.2f}")
    print(f"the others' 429 and 503 (target: 0): {refused}; other failures: {failed}")


if __name__ == "__main__":
    if sys.argv[2] == "noise":
        asyncio.run(noise(int(sys.argv[1]), sys.argv[3]))
    else:
        asyncio.run(measure(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
