"""More than one: two writers, grown grids, trials that diverge beside others, clocks that jump."""

from __future__ import annotations

import datetime
import json
import os
import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

from outcome import Outcome
from study import Study, bits, forget, kill, read, run_again, snapshots_often, stamps, wait

import mtl.sweep.store
from mtl.checkpoint import load_about
from mtl.sweep import lease
from mtl.sweep.snapshots import Interrupt, Snapshots


def writers(study: Study, races: int, rng: random.Random) -> Outcome:
    """Start the same sweep twice at once: one runs, the other says who holds the directory and leaves."""
    outcome = Outcome("two writers", "one runs, the other leaves within 5 s, code 2")
    for _ in range(races):
        work = study.new()
        begun = time.monotonic()
        children = {}
        for _ in range(2):
            child, said = study.begin(work, lambda: slowly(0.5))
            children[child] = said
            time.sleep(rng.uniform(0, 0.1))
        codes, first = {}, None
        for _ in range(2):
            child, status = os.waitpid(-1, 0)
            codes[child] = os.waitstatus_to_exitcode(status)
            first = first or (child, time.monotonic() - begun)
        loser, seconds = first
        winner = next(child for child in children if child != loser)
        outcome.expect([codes[winner], codes[loser]] == [0, 2], f"{work}: exit codes {codes}")
        outcome.expect(f"process {winner} on host" in read(children[loser]), f"{work}: {read(children[loser])[-200:]}")
        outcome.most("slowest refusal, s", seconds)
        outcome.expect(seconds <= 5, f"{work}: refused after {seconds:.1f} s")
        outcome.expect(bits(work) == study.bits, f"{work}: other bits")
        outcome.runs += 1
        shutil.rmtree(work)
    return outcome


def slowly(seconds: float) -> None:
    """Let this process take its time once it holds the lease."""
    remove = lease.remove_halves
    lease.remove_halves = lambda workdir: (time.sleep(seconds), remove(workdir))


def stale_leases(study: Study, races: int) -> Outcome:
    """Several processes find the lease of a dead one: one takes it."""
    outcome = Outcome("4 takers of a dead holder's lease", "one takes it")
    work = study.new()
    for race in range(races):
        children = [os.fork() or _take(work) for _ in range(4)]
        codes = sorted(wait(child) for child in children)
        outcome.expect(codes == [0, 2, 2, 2], f"race {race}: exit codes {codes}")
        outcome.runs += 1
    return outcome


def _take(work: object) -> int:
    code = 70
    try:
        lease.Lease(work).acquire()
        time.sleep(0.2)
        code = 0
    except lease.HeldError:
        code = 2
    finally:
        os._exit(code)


def grids(study: Study, number: int, rng: random.Random) -> Outcome:
    """Remove trials, make some fail, grow the grid: exactly those that have no result are run."""
    outcome = Outcome("grown grid, failed and missing trials", "runs exactly those")
    for _ in range(number):
        work = study.new()
        shutil.copytree(study.whole, work)
        gone = rng.sample(sorted(study.bits), rng.randrange(0, len(study.bits)))
        for digest in gone:
            shutil.rmtree(work / "trials" / digest)
            if rng.random() < 0.5:
                forget(work, digest)
            if rng.random() < 0.5:
                mtl.sweep.store.Workdir(work).write_failure(digest, {"error": "it failed", "config": {}})
        seeds = 2 + rng.randrange(0, 3)
        before = {digest: stamp for digest, stamp in stamps(work).items() if digest not in gone}
        code, text = study.run(work, lambda seeds=seeds: os.environ.update(SEEDS=str(seeds)))
        found = re.search(r"main: (\d+) trials run, (\d+) re-used", text)
        expected = (str(len(gone) + 2 * (seeds - 2)), str(len(study.bits) - len(gone)))
        outcome.expect(code == 0 and found and found.groups() == expected, f"{work}: {expected}: {text[-200:]}")
        outcome.expect(not run_again(work, before), f"{work}: a done trial ran again")
        old = {d: b for d, b in bits(work).items() if d in study.bits}
        outcome.expect(old == study.bits, f"{work}: other bits")
        outcome.runs += 1
        shutil.rmtree(work)
    return outcome


def diverging(study: Study, number: int, rng: random.Random) -> Outcome:
    """A trial that explodes in a pack side by side: it is marked, and its neighbours have the bits they have alone."""
    outcome = Outcome("NaN, Inf, exploding trial inside a pack", "marked; neighbours bit-identical")
    devices = ["--mesh=trial:2"]
    calm_ones: dict[int, tuple[dict[str, str], dict[str, Any]]] = {}
    for _ in range(number):
        bad = rng.choice(["1e10", "1e20", "1e25", "1e30", "1e36"])
        place = rng.randrange(3)
        rates = [["0.001", "0.01", "0.03"][i] for i in range(3)]
        tame, wild = list(rates), list(rates)
        tame.insert(place, "0.002")
        wild.insert(place, bad)

        def run(chosen: list[str]) -> tuple[dict[str, str], dict[str, Any]]:
            work = study.new()
            code, text = study.run(work, lambda: side_by_side(chosen), extra=devices)
            outcome.expect(code == 0, f"{work}: exit code {code}: {text[-300:]}")
            return bits(work), results(work)

        if place not in calm_ones:
            calm_ones[place] = run(tame)
        (calm, _), (beside, marked) = calm_ones[place], run(wild)
        common = calm.keys() & beside.keys()
        outcome.expect(len(common) == 6, f"{len(common)} neighbours, not 6")
        outcome.expect(all(calm[d] == beside[d] for d in common), f"lr {bad}: neighbours have other bits")
        for digest, result in marked.items():
            diverged = result["status"] == "diverged"
            outcome.count("diverged", diverged)
            # Some come to rest far away, with a loss that is a number: then that is what they came to.
            outcome.count("exploded, loss finite", digest not in common and not diverged)
            tested = [number for metrics in result.get("test", {}).values() for number in metrics.values()]
            numbers = [result["val_score"], *tested]
            good = result["diverged_at"] is not None if diverged else None not in numbers
            outcome.expect(good and not (diverged and digest in common), f"lr {bad}: {digest}: {result['status']}")
        outcome.runs += 1
    return outcome


def side_by_side(rates: list[str]) -> None:
    """Run packs side by side on two devices, with these rates."""
    import jax

    os.environ.update(RATES=",".join(rates), REGIMES="scratch")
    jax.config.update("jax_num_cpu_devices", 2)


def results(work: Path) -> dict[str, dict[str, Any]]:
    """Return each trial's result."""
    workdir = mtl.sweep.store.Workdir(work)
    return {p.name: workdir.result(p.name) for p in (work / "trials").iterdir()}


def clocks(study: Study, number: int, rng: random.Random) -> Outcome:
    """The clock jumps by up to a day between and during runs, and so do the files' times."""
    outcome = Outcome("clock +- 1 day", "order by step, bits equal")
    for _ in range(number):
        work = study.new()
        for first in (True, False):
            seed = rng.random()
            child, _said = study.begin(work, lambda seed=seed: jumping(seed))
            if first:
                await_two_snapshots(work, child)
            else:
                time.sleep(rng.uniform(0.1, study.seconds))
            kill(child)
            wait(child)
            now = time.time()
            for file in (p for p in work.rglob("*") if p.is_file()):
                # The order of times is turned around first, so that going by them is wrong for sure.
                stamp = 2 * now - file.stat().st_mtime if first else now + rng.uniform(-86400, 86400)
                os.utime(file, (stamp, stamp))
            outcome.broken += [f"{work}: {key} goes on from step {at}, not {most}" for key, at, most in behind(work)]
        code, text = study.run(work, lambda: jumping(rng.random()))
        outcome.expect(code == 0 and bits(work) == study.bits, f"{work}: exit code {code}: {text[-200:]}")
        outcome.runs += 1
        shutil.rmtree(work)
    return outcome


def await_two_snapshots(work: Path, child: int) -> None:
    """Wait until a phase has two snapshots, or the sweep has ended."""
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        phases = [file.name.partition("-")[0] for file in (work / "snapshots").glob("*.safetensors")]
        if len(set(phases)) < len(phases):
            return
        time.sleep(0.001)


def behind(work: Path) -> list[tuple[str, int, int]]:
    """Return (phase, step, the last step there is a snapshot of) where the two differ, from a process of its own."""
    answer = work.with_name(f"{work.name}-answer.json")
    child = os.fork()
    if not child:
        try:
            found = Snapshots(work / "snapshots", Interrupt(), print)
            last: dict[str, int] = {}
            for file in (work / "snapshots").glob("*.safetensors"):
                about = load_about(file)
                last |= {key: max(about["at"], last.get(key, 0)) for key in about["keys"]}
            answer.write_text(json.dumps([(k, found.at(k), at) for k, at in last.items() if found.at(k) != at]))
        finally:
            os._exit(0)
    wait(child)
    return [tuple(found) for found in json.loads(answer.read_bytes())]


def jumping(seed: float) -> None:
    """Let this process's clock jump by up to a day whenever it is read."""
    snapshots_often()
    rng, clock = random.Random(seed), time.time
    time.time = lambda: clock() + rng.uniform(-86400, 86400)

    class Jumping(datetime.datetime):
        """A clock that jumps."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            """Return a time up to a day off."""
            return datetime.datetime.fromtimestamp(time.time(), tz)

    datetime.datetime = Jumping
