"""Cases trained for a few steps as a sweep trains them, and what came out.

``python -m accelerating.training FOLDER CASE…`` does it on what JAX_PLATFORMS says, one file of arrays a case.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from benchmarks.cases import CASES
from benchmarks.engine import trial_of

import mtl
from mtl.sweep.cache import enable_cache
from mtl.sweep.execute import execute
from mtl.sweep.plan import make_plan
from mtl.sweep.store import Workdir
from mtl.train.placement import Placement

#: Rows of a batch, so that the CPU is done in time too; and steps of a phase.
BATCH, STEPS = 8, 4


def trained(
    case: str,
    folder: Path,
    changes: Mapping[str, Any] | None = None,
    steps: int = STEPS,
    seeds: Sequence[int] = (0,),
    placement: Placement | None = None,
) -> dict[str, np.ndarray]:
    """Return what trials of a case came to, by name, each stacked along seeds.

    Args:
      case: its name.
      folder: of the work directory.
      changes: fields of the config.
      steps: of each phase.
      seeds: one trial each.
      placement: how they run; by default as a sweep would.

    Returns:
      ``losses`` (training and validation, at every evaluation), ``metrics`` (those without thresholds, of the target),
      ``outputs`` (on the test set) and ``weights`` (all, side by side).

    Raises:
      RuntimeError: if a trial failed.
    """
    # Heads of zeros would give the trunk no gradient in the first step.
    fields = {"batch_size": BATCH, "source.total_steps": steps, "target.total_steps": steps, "evaluations": 1}
    fields |= {"model.head_init": "lecun_normal", **(changes or {})}
    regime = "multitask" if CASES[case].binary else "scratch"
    trials = [trial_of(case, regime, changes={**fields, "seed": seed}) for seed in seeds]
    workdir = Workdir(folder)
    execute(make_plan(trials), workdir, placement=placement)
    found: dict[str, list[np.ndarray]] = {"losses": [], "metrics": [], "outputs": [], "weights": []}
    for trial in trials:
        result = workdir.result(trial.hash)
        if result is None:
            raise RuntimeError(f"{case}: {workdir.failure(trial.hash)}")
        curves = [p[kind] for p in result["phases"] for kind in ("train_loss", "val_loss")]
        found["losses"].append(np.asarray([value for curve in curves for task in curve.values() for value in task]))
        scores = result["test"][trial.target]
        found["metrics"].append(np.asarray([scores["log_loss"], scores["brier"]]))
        found["outputs"].append(workdir.predictions(trial.hash, trial.target)["outputs"])
        leaves = jax.tree.leaves(mtl.load(workdir.trial(trial.hash)).weights)
        found["weights"].append(np.concatenate([np.ravel(leaf) for leaf in leaves]))
    return {name: np.stack(arrays) for name, arrays in found.items()}


def main(folder: Path, cases: Sequence[str]) -> None:
    """Train cases; a file appears when its case is done."""
    enable_cache()  # Of MTL_CACHE_DIR, which may be off.
    for case in cases:
        arrays = trained(case, folder / case)
        np.savez(folder / f"{case}.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
