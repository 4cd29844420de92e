"""The fault matrix: runs the faults, prints a table of what held."""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # The working tree's mtl, installed or not.

# Processes are forked before JAX computes anything, so no thread of its own is lost.
warnings.filterwarnings("ignore", message=r"(?s).*os\.fork\(\)")

import damage  # noqa: E402
import deaths  # noqa: E402
import figures  # noqa: E402
import peers  # noqa: E402
import strangers  # noqa: E402
import together  # noqa: E402
from outcome import Outcome  # noqa: E402
from study import Study  # noqa: E402

#: How often each fault is tried: (short, full).
SIZES = {
    "kills": (3, 200),
    "operations": (61, 1),  # Every how manyth operation.
    "signals": (2, 50),
    "disk": (2, 20),
    "flips": (12, 500),
    "files": (2, 10_000),  # No more than there are.
    "writers": (1, 100),
    "leases": (5, 100),
    "workers": (0, 20),
    "grids": (1, 50),
    "diverging": (1, 50),
    "clocks": (1, 30),
    "mistakes": (10, 100),
    "hostile": (0, 500),
    "peers": (1, 20),
}

#: What differs from the usual study: the target's steps, and the sweep's axes by environment variable.
STUDIES: dict[str, tuple[int, dict[str, str]]] = {
    "kills": (600, {"REGIMES": "scratch,linear_probe,finetune"}),  # Two of its packs end trials.
    "operations": (600, {"SEEDS": "1", "REGIMES": "finetune"}),
    "flips": (600, {"REGIMES": "scratch,linear_probe,finetune"}),
    "files": (600, {"REGIMES": "scratch,linear_probe,finetune"}),
    "workers": (600, {"SEEDS": "25", "RATES": "0.001,0.01"}),
    "diverging": (300, {"SEEDS": "2", "REGIMES": "scratch", "OPTIMIZER": "sgd"}),
    "peers": (3000, {"SEEDS": "1", "REGIMES": "finetune"}),
}

ROWS: dict[str, Callable[[Study, int, random.Random], Outcome]] = {
    "kills": deaths.kills,
    "operations": lambda study, every, rng: deaths.operations(study, every),
    "signals": deaths.signals,
    "disk": damage.full_disks,
    "flips": lambda study, times, rng: damage.flips(study, times, max(2, times // 20), rng),
    "files": damage.strange_files,
    "writers": together.writers,
    "leases": lambda study, times, rng: together.stale_leases(study, times),
    "workers": lambda study, times, rng: deaths.workers(study, times, 8, rng),
    "grids": together.grids,
    "diverging": together.diverging,
    "clocks": together.clocks,
    "mistakes": strangers.mistakes,
    "hostile": lambda study, times, rng: strangers.hostile(times),
    "peers": peers.deaths,
}


def main() -> int:
    """Run what was asked for and return 0 if all of it held."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__)
    parser.add_argument("--size", choices=("short", "full"), default="short")
    parser.add_argument("--only", default="", metavar="FAULT[,FAULT…]", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--times", type=int, default=0, help="how often, instead of what --size says")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="faults that are tried at the same time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", default="", help="keep the figures; those of other faults stay")
    parser.add_argument("--markdown", metavar="FILE", default="", help="print the table of such a file only")
    parser.add_argument("--cost", type=int, default=0, metavar="ROUNDS", help="measure what keeping costs, only")
    arguments = parser.parse_args()
    if arguments.cost:
        import cost  # It computes in this process, which must not fork after that.

        print(json.dumps(cost.cost(arguments.cost), indent=1))
        return 0
    if arguments.markdown:
        print(figures.markdown(json.loads(Path(arguments.markdown).read_bytes())))
        return 0
    only = arguments.only.split(",") if arguments.only else list(SIZES)
    if unknown := set(only) - set(SIZES):
        parser.error(f"--only={','.join(sorted(unknown))}: must be of {', '.join(SIZES)}")
    times = {name: arguments.times or SIZES[name][arguments.size == "full"] for name in SIZES if name in only}
    with tempfile.TemporaryDirectory(prefix="mtl-torture-") as folder:
        os.environ["MTL_CACHE_DIR"] = str(Path(folder) / "cache")
        outcomes = run({name: n for name, n in times.items() if n}, arguments, Path(folder))
    if arguments.json:
        figures.keep(Path(arguments.json), outcomes)
    print(figures.console(outcomes))
    return 1 if any(o["broken"] for o in outcomes) else 0


def run(times: dict[str, int], arguments: argparse.Namespace, folder: Path) -> Sequence[dict[str, object]]:
    """Try each fault, in a process of its own, some at once; the longest begin first."""
    kinds = [_kind(name) for name in times]
    shared = {
        kind: Study(folder / f"shared-{i}", kind[0], **dict(kind[1]))
        for i, kind in enumerate(dict.fromkeys(kinds))
        if kinds.count(kind) > 1
    }
    waiting, running, found = sorted(times, key=lambda name: name not in STUDIES), dict[int, str](), {}
    while waiting or running:
        while waiting and len(running) < arguments.at_once:
            name = waiting.pop(0)
            child = os.fork()
            if not child:
                code = 70
                try:
                    outcome = one(name, shared.get(_kind(name)), times[name], arguments.seed, folder)
                    (folder / f"{name}.json").write_text(json.dumps(outcome))
                    code = 0
                except Exception:  # noqa: BLE001 — a child must never go on where its parent was
                    traceback.print_exc()
                finally:
                    os._exit(code)
            running[child] = name
        child, _ = os.waitpid(-1, 0)
        name = running.pop(child)
        file = folder / f"{name}.json"
        found[name] = json.loads(file.read_bytes()) if file.is_file() else crashed(name)
        said = f"{found[name]['runs']} tried, {len(found[name]['broken'])} broken, {found[name]['seconds']} s"
        print(f"{found[name]['fault']}: {said}", flush=True)
    return [found[name] for name in times]


def crashed(name: str) -> dict[str, object]:
    """Return the row of a fault whose own process ended."""
    outcome = Outcome(name, "")
    outcome.broken.append("it crashed")
    return {"row": name} | vars(outcome) | {"seconds": 0, "cpu_seconds": 0} | figures.circumstances()


def _kind(name: str) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Return what makes a row's study differ from others."""
    steps, environment = STUDIES.get(name, (600, {}))
    return steps, tuple(sorted(environment.items()))


def one(name: str, study: Study | None, times: int, seed: int, folder: Path) -> dict[str, object]:
    """Try one fault and return what it came to."""
    begun = time.monotonic()
    about = figures.circumstances()
    if study is None:
        steps, environment = _kind(name)
        study = Study(folder / name, steps, **dict(environment))
    outcome = ROWS[name](study, times, random.Random(seed))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(u.ru_utime + u.ru_stime for u in used)
    took = {"seconds": round(time.monotonic() - begun), "cpu_seconds": round(cpu)}
    return {"row": name} | vars(outcome) | took | about


if __name__ == "__main__":
    sys.exit(main())
