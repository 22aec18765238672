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

from clinic import PATIENCE, Clinic, quantile

ROUNDS = 3
# Units a second of the tier, and the costs of requests.
UNITS, READ, SEARCH, WRITE = 20, 1, 10, 20


class Visitor(Clinic):
    """Asks for what the classes of routes are measured by."""

    def __init__(self, name, port, directory):
        super().__init__(f"{directory}/{name}.json", port)
        self.stranger = Clinic(f"{directory}/{name}.json", port)

    async def prepare(self):
        await self.login()
        self.patients = await self.identifiers("/v1/patients?limit=20")
        self.practitioners = await self.identifiers("/v1/practitioners?limit=20")

    def read(self):
        return self.ask("GET", f"/v1/patients/{random.choice(self.patients)}")

    def search(self):
        return self.ask("GET", "/v1/patients?limit=10")

    def write(self):
        start = time.time() + 86400 * random.randint(30, 30000)
        text = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) for at in (start, start + 300)]
        return self.ask("POST", "/v1/appointments", {
            "patientId": random.choice(self.patients), "practitionerId": random.choice(self.practitioners),
            "startsAt": text[0], "endsAt": text[1], "reason": "bench"}, key=f"noisy-{os.getpid()}-{random.getrandbits(60)}")

    def guess(self):
        return self.stranger.ask("POST", "/v1/auth/login", dict(self.credentials, password="wrong-" + str(random.random())))


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
    clinic = Visitor("noisy", port, directory)
    await clinic.prepare()
    print("ready", flush=True)
    counts = {}

    def outcome(_, status):
        counts[status] = counts.get(status, 0) + 1

    task = asyncio.ensure_future(offer(
        [(clinic.read, 100 * UNITS / READ / 4), (clinic.search, 100 * UNITS / SEARCH),
         (clinic.write, 100 * UNITS / WRITE), (clinic.guess, 100 * UNITS / WRITE / 4)], 3600, outcome))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    task.cancel()
    print(json.dumps(counts), flush=True)
    os._exit(0)


async def measure(port, seconds, directory):
    clinics = [Visitor(f"quiet{number:02}", port, directory) for number in range(1, 21)]
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
        print(f"{name:34} {len(values):>10} {quantile(values, .5) * 1000:>9.2f} {quantile(values, .99) * 1000:>9.2f}")
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
