"""A column is added on many shards while their clinics are used.

    migrate_clients.py PORT STATE SHARDS RATE COMMAND

STATE/bench has fleetNN.json for each shard, as `hc-admin tenant create --json` printed them, and the migrations with one
more. COMMAND is hc-admin. RATE requests a second go to the clinics in turn, one third of them writes. On each eighth shard
somebody reads the table in transactions of a quarter of a second, so that the migration does not get its locks at once. The
column is added again and again, and taken away. What requests wait for locks is what PostgreSQL logs (log_lock_waits).
"""

import asyncio
import heapq
import os
import re
import subprocess
import sys
import time

from clinic import Ledger, load, quantile, run

# What is run, and how often. A second of other work is what a larger shard, or one on a server of its own, takes: what the run
# adds to it is the runner's.
KINDS = [
    ("a column", "ALTER TABLE patient ADD COLUMN bench text;", 2),
    ("a column, after a second of other work", "SELECT pg_sleep(1); ALTER TABLE patient ADD COLUMN bench text;", 1),
]
PARALLEL = 8  # the default of `migrate up`
LOGGED = 10  # ms: shorter waits are not logged
WAITED = re.compile(r"process \d+ (?:acquired|still waiting for) (\w+) on (relation|tuple|transaction|advisory lock)"
                    r".* after ([\d.]+) ms")
# What migrations ask for, and nobody else.
OWN = ("AccessExclusiveLock", "ShareUpdateExclusiveLock")


class Platform:
    def __init__(self, state, shards):
        self.state = state
        # One shard of each server, by the server's number.
        self.servers = {}
        for number in range(1, shards + 1):
            self.servers.setdefault(self.read(f"services/s{number}.server"), f"s{number}")
        self.logs = [f"{self.read('services/place').splitlines()[0]}/postgres-{server}/log" for server in self.servers]

    def read(self, name):
        return open(f"{self.state}/{name}").read().strip()

    def conninfo(self, name):
        return self.read(f"secrets/{name}.conninfo")

    def psql(self, name, sql):
        return subprocess.run(
            ["psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", self.conninfo(name), "-c", sql],
            check=True, capture_output=True, text=True).stdout.strip()

    def log_waits(self, wanted):
        for shard in self.servers.values():
            for name, value in (("deadlock_timeout", f"'{LOGGED}ms'"), ("log_lock_waits", "on")):
                self.psql(f"shards/{shard}.superuser",
                          f"ALTER SYSTEM SET {name} = {value}" if wanted else f"ALTER SYSTEM RESET {name}")
            self.psql(f"shards/{shard}.superuser", "SELECT pg_reload_conf()")


async def reader(platform, shard, stop):
    """Somebody who reads the table in long transactions."""
    process = await asyncio.create_subprocess_exec(
        "psql", "-X", "-q", "-At", platform.conninfo(f"shards/{shard}.superuser"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
    while not stop.is_set():
        process.stdin.write(b"BEGIN; SELECT count(*) FROM patient; SELECT pg_sleep(0.25); COMMIT;\n")
        await asyncio.sleep(1)
    process.stdin.close()
    await process.wait()


def write_migration(migrations, sql):
    newest = sorted(name for name in os.listdir(f"{migrations}/shard") if name.endswith("-bench"))[-1]
    with open(f"{migrations}/shard/{newest}/up.sql", "w") as file:
        file.write(sql + "\n")


async def take_back(command, migrations):
    """From every shard that has it: another run, and another release, begin where this one did."""
    status = await run(command, "migrate", "status", "--migrations", migrations, "--json")
    newest = max(len(os.listdir(f"{migrations}/shard")) - 1, 0)
    for shard in status["shards"]:
        if shard["version"] == newest:
            await run(command, "migrate", "down", "--migrations", migrations, "--shard", shard["id"], "--json")


def own_times(platform):
    """Of the last run: seconds from its beginning to its end, and of each shard, by wave."""
    rows = platform.psql("control.admin", """
        WITH last AS (SELECT * FROM migration_rollout ORDER BY started_at DESC LIMIT 1)
        SELECT extract(epoch FROM last.finished_at - last.started_at), run.wave, run.shard_id,
            sum(extract(epoch FROM run.finished_at - run.started_at))
        FROM last JOIN migration_run AS run ON rollout_id = last.id AND run.state = 'done'
        GROUP BY 1, 2, 3 ORDER BY min(run.started_at)""")
    waves, total = {}, 0
    for line in rows.splitlines():
        whole, wave, _, own = line.split("|")
        total = float(whole)
        waves.setdefault(int(wave), []).append(float(own))
    return total, waves


def needed(wave):
    """Seconds until all are done if nothing comes between: whoever of PARALLEL is free takes the next shard."""
    free = [0.0] * PARALLEL
    for own in wave:
        heapq.heapreplace(free, free[0] + own)
    return max(free)


async def main():
    port, state, shards, rate, command = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), [sys.argv[5]]
    platform = Platform(state, shards)
    clinics = [Ledger(f"{state}/bench/fleet{number:02d}.json", port) for number in range(1, shards + 1)]
    for clinic in clinics:
        await clinic.prepare()
    migrations = f"{state}/bench/migrations"
    platform.log_waits(True)
    stop, spans, rests, runs, waits = asyncio.Event(), [], [], [], []
    tasks = [asyncio.create_task(load(
        lambda number, due: clinics[number % len(clinics)].one(due, number % 3 == 0), rate, stop))]
    tasks += [asyncio.create_task(reader(platform, f"s{number}", stop)) for number in range(1, shards + 1, 8)]
    try:
        await asyncio.sleep(5)
        for kind, sql in [(kind, sql) for kind, sql, count in KINDS for _ in range(count)]:
            write_migration(migrations, sql)
            rests.append((time.monotonic(), time.monotonic() + 5))
            await asyncio.sleep(5)
            ends = [os.path.getsize(log) for log in platform.logs]
            begin = time.monotonic()
            await run(command, "migrate", "up", "--migrations", migrations, "--json")
            end = time.monotonic()
            spans.append((begin, end))
            total, waves = own_times(platform)
            runs.append((kind, end - begin, total, waves))
            await asyncio.sleep(1)
            for log, at in zip(platform.logs, ends):
                with open(log) as lines:
                    lines.seek(at)
                    waits += [(mode, what, float(took)) for mode, what, took in WAITED.findall(lines.read())]
            await take_back(command, migrations)
    finally:
        stop.set()
        await take_back(command, migrations)
        await asyncio.gather(*tasks, return_exceptions=True)
        platform.log_waits(False)
    report(clinics, rate, spans, rests, runs, waits)


def report(clinics, rate, spans, rests, runs, waits):
    def within(areas):
        return [took * 1000 for clinic in clinics for due, took, _ in clinic.times
                if any(begin <= due < end for begin, end in areas)]

    print(f"{len(runs)} runs over {len(clinics)} shards under {rate:.0f} requests/s, one third writes; "
          f"somebody reads the table for 250 ms of each second on every eighth shard")
    for kind, wall, total, waves in runs:
        own = [took for wave in waves.values() for took in wave]
        # A wave takes as long as its slowest shard, or, where it is more shards than are worked on at once, as these take
        # one after the other. Twelve that take the same are two rounds of eight, and not one and a half.
        least = sum(needed(wave) for wave in waves.values())
        divided = sum(max(max(wave), sum(wave) / PARALLEL) for wave in waves.values())
        print(f"{kind}: {wall:.2f} s, of it {total:.2f} s from begin to end in {len(waves)} waves; what a shard takes: "
              + ", ".join(f"p{part * 100:.0f} {quantile(own, part) * 1000:.0f} ms" for part in (.1, .5, .9))
              + f", slowest {max(own) * 1000:.0f} ms; what the waves need with {PARALLEL} shards at once {least:.2f} s: "
              f"{total / least:.2f}x (target: at most 1.20); if rounds could be divided evenly {divided:.2f} s: "
              f"{total / divided:.2f}x")
    requests = [took for mode, what, took in waits if mode not in OWN]
    print(f"requests that waited for a lock for more than {LOGGED} ms: {len(requests)}; "
          f"longest {max(requests, default=0):.0f} ms (target: at most 100)")
    during, between = within(spans), within(rests)
    print(f"a request: p50 {quantile(during, .5):.1f} ms, p99 {quantile(during, .99):.1f} ms, slowest {max(during):.0f} ms "
          f"while it runs; {quantile(between, .5):.1f}, {quantile(between, .99):.1f}, {max(between):.0f} ms between")
    failures = [failure for clinic in clinics for failure in clinic.failures]
    print(f"failed requests: {len(failures)} of {sum(len(clinic.times) for clinic in clinics)} (target: 0)")
    for failure in failures[:5]:
        print(f"    {failure}")


asyncio.run(main())
