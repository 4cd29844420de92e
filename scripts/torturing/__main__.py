"""The fault matrix: runs the faults, prints a table of what held."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # The working tree's mtl, installed or not.

# Processes are forked before JAX computes anything, so no thread of its own is lost.
warnings.filterwarnings("ignore", message=r"(?s).*os\.fork\(\)")

import damage  # noqa: E402
import deaths  # noqa: E402
import strangers  # noqa: E402
import together  # noqa: E402
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
    "hostile": (0, 2000),
}


#: The studies that there are, by what makes them differ.
STUDIES: dict[tuple[object, ...], Study] = {}


def main() -> int:
    """Run what was asked for and return 0 if all of it held."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__)
    parser.add_argument("--size", choices=("short", "full"), default="short")
    parser.add_argument("--only", default="", metavar="FAULT[,FAULT…]", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--times", type=int, default=0, help="how often, instead of what --size says")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", default="")
    arguments = parser.parse_args()
    only = arguments.only.split(",") if arguments.only else list(SIZES)
    if unknown := set(only) - set(SIZES):
        parser.error(f"--only={','.join(sorted(unknown))}: must be of {', '.join(SIZES)}")
    with tempfile.TemporaryDirectory(prefix="mtl-torture-") as folder:
        os.environ["MTL_CACHE_DIR"] = str(Path(folder) / "cache")
        outcomes = [run(name, arguments, Path(folder)) for name in SIZES if name in only]
    outcomes = [outcome for outcome in outcomes if outcome is not None]
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(outcomes, indent=1) + "\n")
    print(f"\n{'fault':58} {'tried':>6} {'broken':>6}  must hold; figures")
    for o in outcomes:
        figures = ", ".join(f"{k}: {v}" for k, v in o["figures"].items() if v)
        print(f"{o['fault']:58} {o['runs']:>6} {len(o['broken']):>6}  {o['holds']}; {figures}; {o['seconds']} s")
    for o in outcomes:
        for sentence in o["broken"][:5]:
            print(f"BROKEN {o['fault']}: {sentence}")
    return 1 if any(o["broken"] for o in outcomes) else 0


def run(name: str, arguments: argparse.Namespace, folder: Path) -> dict[str, object] | None:
    """Try one fault; nothing where this size leaves it out."""
    times = arguments.times or SIZES[name][arguments.size == "full"]
    if not times:
        return None
    rng = random.Random(arguments.seed)
    begun = time.monotonic()

    def study(steps: int = 600, **environment: str) -> Study:
        key = (steps, *sorted(environment.items()))
        if key not in STUDIES:
            STUDIES[key] = Study(folder / name, steps, **environment)
        return STUDIES[key]

    outcome = {
        "kills": lambda: deaths.kills(study(), times, rng),
        "operations": lambda: deaths.operations(study(SEEDS="1", REGIMES="finetune"), times),
        "signals": lambda: deaths.signals(study(), times, rng),
        "disk": lambda: damage.full_disks(study(), times, rng),
        "flips": lambda: damage.flips(study(), times, max(2, times // 20), rng),
        "files": lambda: damage.strange_files(study(), times, rng),
        "writers": lambda: together.writers(study(), times, rng),
        "leases": lambda: together.stale_leases(study(), times),
        "workers": lambda: deaths.workers(study(SEEDS="17", RATES="0.001,0.01"),
                                          times, 8, rng),
        "grids": lambda: together.grids(study(), times, rng),
        "diverging": lambda: together.diverging(study(300, SEEDS="2", REGIMES="scratch", OPTIMIZER="sgd"), times, rng),
        "clocks": lambda: together.clocks(study(), times, rng),
        "mistakes": lambda: strangers.mistakes(study(), times, rng),
        "hostile": lambda: strangers.hostile(times),
    }[name]()  # fmt: skip
    found = vars(outcome) | {"seconds": round(time.monotonic() - begun)}
    print(f"{outcome.fault}: {outcome.runs} tried, {len(outcome.broken)} broken, {found['seconds']} s", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
