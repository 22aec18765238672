"""Clinics that are moved to and fro under load, one after the other, with a ledger of what was acknowledged.

    move_clients.py PORT DIRECTORY MOVES EACH RATE SHARD SHARD COMMAND...

DIRECTORY has moved1.json, moved2.json and so on, one for each EACH moves, and neighbour.json, as `hc-admin tenant create
--json` printed them, and pipe.json, what a plain copy of moved1 took, as the shell function copy_by_pipe makes it. COMMAND is
hc-admin. RATE requests a second go to the clinic that is moved, one third of them writes, and a tenth of RATE to its
neighbour on the first shard. Requests begin by the clock, whether those before them were answered or not. Moves alternate
with rests of the same length, though of at most five seconds, so that what else the machine does is in both.
"""

import asyncio
import datetime
import json
import sys
import time

from clinic import Ledger, load, quantile, run


def within(times, areas, is_write=None):
    """Milliseconds of the requests that were due in one of AREAS."""
    return [took * 1000 for due, took, wrote in times if (is_write is None or wrote == is_write)
            and any(begin <= due < end for begin, end in areas)]


async def main():
    port, directory, moves, each, rate = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
    shards, command = sys.argv[6:8], sys.argv[8:]
    clinics = [Ledger(f"{directory}/moved{number + 1}.json", port) for number in range((moves + each - 1) // each)]
    beside = Ledger(f"{directory}/neighbour.json", port)
    for clinic in (clinics[0], beside):
        await clinic.prepare()
    busy, stop = clinics[0], asyncio.Event()
    loads = [asyncio.create_task(load(lambda number, due: busy.one(due, number % 3 == 0), rate, stop)),
             asyncio.create_task(load(lambda number, due: beside.one(due, number % 3 == 0), max(1, rate / 10), stop))]
    await asyncio.sleep(2)
    begin = time.monotonic()
    await run(["bash", "-c", 'copy_by_pipe "$@"', "copy"], busy.slug)
    piped = [(begin, time.monotonic())]
    await asyncio.sleep(2)
    spans, rests, pauses, slowest, around, lengths, copies, parts, tries, sizes = [], [], [], [], [], [], [], [], [], []
    phases = {"copying": [], "comparing": [], "after the pause": []}
    for number in range(moves):
        if busy is not clinics[number // each]:
            # A login is good for a quarter of an hour.
            for clinic in (clinics[number // each], beside):
                await clinic.prepare()
            busy = clinics[number // each]
            await asyncio.sleep(2)
        if number % each == 0:
            now = await run(command, "tenant", "show", busy.slug, "--json")
        target = shards[0] if now["shard"] != shards[0] else shards[1]
        begin, offset = time.monotonic(), time.time() - time.monotonic()
        answer = await run(command, "tenant", "move", busy.slug, "--to", target, "--wait", "--soak", "0s", "--json")
        end = time.monotonic()
        if answer["state"] != "done":
            raise SystemExit(f"the move ended as {answer['state']}: {answer['progress']}")
        now = {"shard": target}
        pauses.append(answer["progress"]["pauseMicroseconds"] / 1000)
        tries.append(answer["progress"]["pauseTries"])
        sizes.append(answer["progress"]["rows"])
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
        spans.append((begin, end))
        lengths.append(end - begin)
        await asyncio.sleep(min(5, end - begin))
        rests.append((end, time.monotonic()))
        print(f"    move {number + 1}: {answer['progress']['rows']} rows, copy {copied - begin:.1f} s, compare {gated - copied:.1f} s, "
              f"pause {pauses[-1]:.1f} ms ({', '.join(f'{part:.1f}' for part in parts[-1])}; "
              f"{answer['progress']['verification']['rowsInPause']} rows), after it {end - opened:.1f} s; p95 of the neighbour "
              f"{quantile(within(beside.times, spans[-1:]), .95):.1f} ms, then {quantile(within(beside.times, rests[-1:]), .95):.1f} ms",
              flush=True)
    await asyncio.sleep(1)
    stop.set()
    await asyncio.gather(*loads)
    moved = [one for clinic in clinics for one in clinic.times]

    usual = quantile(within(moved, rests, True), 0.5)
    # Those that met the pause; and for comparison all of the move, and of a rest of the same length.
    for span in around:
        slowest.append(max(within(moved, [span], True), default=float("nan")) - usual)
    worst, worst_between = ([max(within(moved, [span], True), default=float("nan")) - usual for span in areas]
                            for areas in (spans, rests))
    print(f"{moves} moves of {min(sizes)} to {max(sizes)} rows under {rate:.0f} requests/s, one third writes")
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
    for name, times in (("the clinic", moved), ("its neighbour", beside.times)):
        a, b = (quantile(within(times, areas), .95) for areas in (spans, rests))
        print(f"p95 of {name}: {a:.1f} ms while it is moved, {b:.1f} ms between: {a / b:.2f}x"
              + (" (target: at most 1.25)" if times is beside.times else ""))
    print("    of its neighbour by phase: " + ", ".join(
        f"{quantile(within(beside.times, areas), .95):.1f} ms {phase} ({sum(b - a for a, b in areas) / moves:.1f} s)"
        for phase, areas in phases.items())
        + f"; {quantile(within(beside.times, piped), .95):.1f} ms beside a plain COPY | COPY ({piped[0][1] - piped[0][0]:.1f} s)")
    verification = answer["progress"]["verification"]
    print(f"    last move: {verification['rounds']} rounds of {verification['chunks']} chunks, {verification['chunksInPause']} in the pause")
    everybody = [*clinics, beside]
    failures = [failure for clinic in everybody for failure in clinic.failures]
    print(f"failed requests: {len(failures)} of {sum(len(clinic.times) for clinic in everybody)}")
    for failure in failures[:5]:
        print("   ", failure[1:])
    wrong = 0
    for clinic in everybody:
        await clinic.login()
        lost, doubled = await clinic.verify()
        wrong += lost + doubled
        print(f"{clinic.slug}: {len(clinic.acknowledged)} acknowledged writes, {lost} lost, {doubled} doubled")
    if failures or wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    asyncio.run(main())
