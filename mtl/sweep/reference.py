"""A trial's reference: a model of scikit-learn, fitted to the labels that a network for the target alone would have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mtl.sweep.evaluate import PhaseResult
from mtl.sweep.plan import Node, scaling_of, split_of, table_of
from mtl.train.program import Weights
from mtl.train.reference import fit


def refer(node: Node) -> PhaseResult:
    """Return a reference's only phase: its outputs on the rows of the test set stand where weights would.

    It is fitted to the rows with a training or a validation label of the target, on inputs and labels scaled as a
    network's. What it was charged with: each of these rows once, seconds, and no operations, which nobody counts.
    """
    trial, table, split, scaling = node.trial, table_of(node.trial), split_of(node.trial), scaling_of(node.trial)
    x: Any = table.x
    (task,) = node.stage.program.specs
    labelled = np.flatnonzero(split.train[task.name] | split.val[task.name])
    tested = np.flatnonzero(np.any(list(split.test.values()), axis=0))

    def seen(rows: np.ndarray) -> np.ndarray:
        return scaling.inputs(x[rows]).reshape(len(rows), -1).astype(np.float64)

    fitted = fit(
        trial.phases[0].solver,
        task,
        seen(labelled),
        scaling.labels(task.name, split.labels[task.name][labelled]),
        trial.seed,
    )
    outputs = np.full((len(table), task.outputs), np.nan, np.float32)
    outputs[tested] = fitted.outputs(seen(tested))
    about: dict[str, Any] = {
        "tasks": [task.name],
        "lr": 0.0,
        "steps": node.stage.steps,
        "most_steps": node.stage.steps,
        "best_at": node.stage.steps,
        "evaluated_at": [node.stage.steps],
        "train_loss": {task.name: [math.nan]},
        "val_loss": {task.name: [fitted.loss * scaling.squared(task.name)]},
        "val_score": {task.name: [fitted.loss / (fitted.prior or 1.0)]},
        "diverged_at": -1,
        "examples": len(labelled),
        "flops": math.nan,
        "seconds": fitted.seconds,
        "source_only": node.source_only,
        "key": node.key,
        "width": 1,
        "chosen": fitted.chosen,
    }
    return PhaseResult(Weights({"outputs": {task.name: outputs}}, {}), about)
