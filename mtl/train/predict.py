"""Predictions of trained models, in batches."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from mtl.data.streamed import Inputs, blocks
from mtl.models import Model
from mtl.train import executor as executors
from mtl.train import pack
from mtl.train.placing import pad
from mtl.train.program import Weights

#: Predictions are made for at most so many inputs at a time.
PREDICTION_ROWS = 1024


#: (shift, scale, fill) of the inputs that programs take, float32 [...], or of several lanes [lanes, ...].
Coded = tuple[np.ndarray, np.ndarray, np.ndarray]


def predict(
    model: Model,
    task: str,
    weights: Sequence[Weights],
    x: Inputs,
    scaling: Sequence[Coded] | None = None,
    *,
    gaps: bool = False,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Return the outputs of a task's head for inputs x, one set of weights after the other, on one device.

    Args:
      model: the model.
      task: the task's name.
      weights: one each a lane.
      x: inputs [N, …] float32, in memory or streamed.
      scaling: what each lane's inputs are scaled with; by default nothing.
      gaps: whether NaN among the inputs is a missing one.
      rows: whose inputs, n of them; all if none.

    Returns:
      Outputs [lanes, n, task outputs].
    """
    width = executors.width_for(executors.MAP, len(weights))
    fn = pack.predict_fn(model, task, scaling is not None, gaps)
    size = min(len(x if rows is None else rows), PREDICTION_ROWS)  # Of every block, so that all have the same program.
    if scaling is None:
        zeros = np.zeros(x.shape[1:], np.float32)
        scaling = [(zeros, zeros, zeros)] * len(weights)
    found = []
    for first in range(0, len(weights), width):
        part = slice(first, first + width)
        count = len(weights[part])
        whole = jax.tree.map(lambda *leaves: pad(np.stack(leaves), width), *weights[part])
        numbers = jax.tree.map(lambda *leaves: pad(np.stack(leaves), width), *scaling[part])
        outputs = []
        for block in blocks(x, rows, PREDICTION_ROWS):
            out = np.asarray(fn(np.int32(count), whole, numbers, pad(block, size)))
            outputs.append(out[:count, : len(block)])
        found.append(np.concatenate(outputs, axis=1))
    return np.concatenate(found)
