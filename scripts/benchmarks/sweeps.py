"""Whole sweeps, as a user runs them: start-up, compilation and writing count."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rounds import ROOT, cores_of, environment

CONFIG = ROOT / "scripts" / "benchmarks" / "sweep_config.py"


def mtl(arguments: list[str], cache: Path) -> float:
    """Run a command of ours and return its wall seconds."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "mtl.cli", *arguments],
        cwd=ROOT,
        env=environment() | {"MTL_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"mtl {' '.join(arguments)}: exit code {done.returncode}: {done.stdout[-2000:]}")
    return time.perf_counter() - begin


def trials_per_minute(pytorch_trials: int = 24) -> dict[str, Any]:
    """Return (trials a minute of both sides, where ours goes).

    Ours runs three times with a cold cache, and in between PyTorch's trials twice, of which enough are run for a rate:
    one process a trial, two at a time, each with one thread.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        config, trials, steps = f"--config={CONFIG}", 256, 500
        planned = mtl(["sweep", config, "--dry-run", f"--workdir={path / 'none'}"], path / "none-cache")
        cold, theirs = [mtl(["sweep", config, f"--workdir={path / 'cold-0'}"], path / "cache-0")], 0.0
        for i in (1, 2):
            theirs += _pytorch(pytorch_trials // 2, steps, path)
            cold.append(mtl(["sweep", config, f"--workdir={path / f'cold-{i}'}"], path / f"cache-{i}"))
        warm = mtl(["sweep", config, f"--workdir={path / 'warm'}"], path / "cache-0")
        again = mtl(["sweep", config, f"--workdir={path / 'warm'}"], path / "cache-0")
        jobs = len(cores_of(2))
        sys.path.insert(0, str(ROOT))
        from mtl.sweep.store import Workdir

        workdir = Workdir(path / "cold-0")
        results = [workdir.result(digest) for digest in workdir.hashes()]
        assert len(results) == trials, f"{len(results)} trials of {trials} are there"
        training = sum(r["cost"]["seconds"] for r in results) / jobs
        ours = sum(cold) / len(cold)
    return {
        "ours_seconds": ours,
        "ours_trials": trials,
        "ours_per_minute": 60 * trials / ours,
        "theirs_trials": pytorch_trials,
        "theirs_seconds": theirs,
        "theirs_per_minute": 60 * pytorch_trials / theirs,
        "ratio": (trials / ours) / (pytorch_trials / theirs),
        "parts": {
            "start, plan": planned,
            "check, tables, figures, page": again - planned,
            "training": training,
            "compiling": ours - warm,
            "workers, writing, the rest": warm - again - training,
        },
    }


def _pytorch(trials: int, steps: int, path: Path) -> float:
    """Return the wall seconds of so many trials, two processes at a time."""
    waiting = [
        [sys.executable, "-m", "benchmarks.pytorch_trial", str(seed), "1e-3", str(steps), str(path / f"{seed}.json")]
        for seed in range(trials)
    ]
    env = environment() | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    begin, running = time.perf_counter(), list[subprocess.Popen[bytes]]()
    while waiting or running:
        while waiting and len(running) < 2:
            running.append(subprocess.Popen(waiting.pop(0), env=env, cwd=ROOT))
        for process in [p for p in running if p.poll() is not None]:
            if process.returncode:
                raise RuntimeError(f"a PyTorch trial ended with exit code {process.returncode}")
            running.remove(process)
        time.sleep(0.005)
    return time.perf_counter() - begin


def quickstart() -> dict[str, float]:
    """Return wall seconds of the main study in a fresh work directory: with a cold cache and with a warm one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        config = f"--config={ROOT / 'configs' / 'digits.py'}"
        return {
            state: mtl(["sweep", config, f"--workdir={path / state}"], path / "cache") for state in ("cold", "warm")
        }


def shared_steps() -> dict[str, Any]:
    """Return steps of the digits study: planned, by the closed form, and without sharing.

    Its first sweep as it is; and of the regimes that begin with the source phase, which has 3.3 times the target's
    steps.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.path.insert(0, str(ROOT))
    from mtl.config import flatten, load
    from mtl.sweep.plan import make_plan
    from mtl.sweep.study import make_sweep, settle

    config, module = load(str(ROOT / "configs" / "digits.py"))
    found: dict[str, Any] = {}
    begun = ("linear_probe", "finetune", "lp_ft", "gradual")
    for name, regimes, source in (
        ("as it is", module.REGIMES, 600),
        ("transfer alone, source phase × 3.3", begun, 990),
    ):
        flat = flatten(config) | {"source.total_steps": source}
        entries = module.grid("even", ("identity",), regimes)
        plan = make_plan([m.trial for m in make_sweep("s", *settle(flat, entries)).members])
        found[name] = {
            "steps": plan.steps(),
            "closed_form": closed_form(module, regimes, source, 300),
            "unshared": plan.steps_unshared(),
        }
    return found


def closed_form(module: Any, regimes: Sequence[str], source: int, target: int) -> int:
    """Return the steps that a sweep must take if every distinct phase is trained once.

    A phase that comes before the first with a regime's own rate does not depend on that rate: a source phase is one a
    replicate, and a joint phase at the source's rate one for each replicate and size. All others are one for each
    replicate, size and rate. All have one total of updates; validation may end them earlier, which no plan knows.
    """
    replicates, sizes = len(module.REPLICATES), len(module.SIZES)
    own = {
        "scratch": source + target,
        "random_probe": source + target,
        "linear_probe": target,
        "finetune": target,
        "lp_ft": 2 * round(target / 2),
        "gradual": 3 * round(target / 3),  # The head, and the perceptron's two layers.
        "multitask": source + target,
        "multitask_finetune": target,
        "scratch@2": 2 * (source + target),
        "multitask@2": 2 * (source + target),
    }
    steps = replicates * sizes * len(module.RATES) * sum(own[r] for r in regimes)
    if {"linear_probe", "finetune", "lp_ft", "gradual"} & set(regimes):
        steps += replicates * source
    if "multitask_finetune" in regimes:
        steps += replicates * sizes * source
    return steps
