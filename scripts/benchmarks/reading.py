"""Reading a finished study of 5,000 trials: what ``mtl status``, ``table``, ``report`` and ``mtl.results`` take.

``PYTHONPATH=scripts:. python -m benchmarks.reading WORKDIR`` makes the study there, to look at it or to profile.
"""

from __future__ import annotations

import copy
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.rounds import ROOT, environment

CONFIG = ROOT / "configs" / "digits.py"
REGIMES = ("scratch", "linear_probe", "finetune", "lp_ft", "multitask")
SIZES = (10, 20, 30, 50, 70, 100, 150, 200, 300, 500)
SEEDS, RATES = range(20), (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TOGETHER = 64  # Trials in a file, as sweeps write them.

#: What is timed, each in a process of its own.
READERS: Mapping[str, list[str]] = {
    "mtl status": ["-m", "mtl.cli", "status", "{}"],
    "mtl table": ["-m", "mtl.cli", "table", "{}"],
    "mtl report": ["-m", "mtl.cli", "report", "{}"],
    "mtl.results": ["-c", "import mtl, sys; assert len(mtl.results(sys.argv[1])) == 5000", "{}"],
}


def make(workdir: Path) -> None:
    """Make a finished study: five trials are run, and all others have their results with other numbers.

    Args:
      workdir: where; it need not be there.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.path.insert(0, str(ROOT))
    from mtl.config import flatten, load
    from mtl.sweep import product, sweep
    from mtl.sweep.launch import Silent, launch
    from mtl.sweep.plan import make_plan
    from mtl.sweep.shards import NewResult
    from mtl.sweep.sources import sources_of
    from mtl.sweep.store import Workdir
    from mtl.sweep.study import make_sweep, record, settle

    config, _ = load(str(CONFIG))
    flat = flatten(config) | {"tune.source_lr": ()}
    with tempfile.TemporaryDirectory() as folder:
        ran = Workdir(Path(folder) / "work")
        one = product(sweep("regime", REGIMES), [{"lr": RATES[0], "data.target_size": SIZES[-1]}])
        launch(flat, {"one": one}, ran, jobs=0, config_file=str(CONFIG), display=Silent())
        found = [ran.result(digest) or {} for digest in ran.hashes()]
        like = {r["config"]["regime"]: (r, ran.predictions(r["hash"], "even")) for r in found}
    entries = product(
        sweep("regime", REGIMES), sweep("data.target_size", SIZES), sweep("seed", SEEDS), sweep("lr", RATES)
    )
    made = make_sweep("even", *settle(flat, entries))
    work = Workdir(workdir)
    plan = make_plan(made.trials, sources_of(str(CONFIG)))
    record(work, made, plan, ())
    rng = np.random.default_rng(0)
    for at in range(0, len(made.members), TOGETHER):
        results = []
        for member in made.members[at : at + TOGETHER]:
            result, arrays = copy.deepcopy(like[member.changes["regime"]])
            config, score = member.trial.config, float(rng.uniform(0.2, 0.4))
            result |= {"hash": member.trial.hash, "config": config, "val_score": score}
            result["fingerprint"] = plan.fingerprints[member.trial.hash]
            right = rng.uniform(size=len(arrays["scores"])) < 1 - score
            result["test"]["even"]["accuracy"] = float(right.mean())
            results.append(NewResult(result, {"even": arrays | {"scores": right.astype(arrays["scores"].dtype)}}))
        work.write_results(results)


def seconds(arguments: list[str], workdir: Path, cache: Path) -> float:
    """Return the processor seconds of a Python process that reads a study."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *(a.format(workdir) for a in arguments)],
        cwd=ROOT,
        env=environment() | {"MTL_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments}: exit code {done.returncode}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def reading(rounds: int) -> dict[str, dict[str, Any]]:
    """Return the processor seconds of each reader of 5,000 trials: the first time, and then in interleaved rounds."""
    with tempfile.TemporaryDirectory() as folder:
        work, cache = Path(folder) / "work", Path(folder) / "cache"
        make(work)
        found: dict[str, dict[str, Any]] = {}
        for name, arguments in READERS.items():  # Before each nothing is known of the study.
            found[name] = {"first": seconds(arguments, work, Path(folder) / f"cache-{name}"), "then": []}
            (work / "published.json").unlink(missing_ok=True)
        for arguments in READERS.values():
            seconds(arguments, work, cache)
        for _ in range(rounds):
            for name, arguments in READERS.items():
                found[name]["then"].append(seconds(arguments, work, cache))
    return found


if __name__ == "__main__":
    begin = time.perf_counter()
    make(Path(sys.argv[1]))
    print(f"made in {time.perf_counter() - begin:.0f} s")
