"""What trained models say of inputs, block by block."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mtl.data.streamed import Inputs, blocks
from mtl.models import Model
from mtl.train import executor as executors
from mtl.train import pack
from mtl.train.phase import Weights
from mtl.train.placing import pad

#: Predictions are made for at most so many inputs at a time.
PREDICTION_ROWS = 1024


def predict(
    model: Model,
    task: str,
    weights: Sequence[Weights],
    shift: np.ndarray,
    scale: np.ndarray,
    x: Inputs,
    *,
    standardize: bool,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Return the outputs of a task's head for inputs x, one set of weights after the other, on one device.

    Args:
      model: the model.
      task: the task's name.
      weights: one each a lane.
      shift, scale: what each lane's inputs are standardised with, [lanes, …].
      x: inputs [N, …], in memory or streamed.
      standardize: whether they are.
      rows: whose inputs, n of them; all if none.

    Returns:
      Outputs [lanes, n, task outputs].
    """
    width = executors.width_for(executors.MAP, len(weights))
    fn = pack.predict_fn(model, task, standardize)
    several = len(x if rows is None else rows) > PREDICTION_ROWS
    found = []
    for first in range(0, len(weights), width):
        part = slice(first, first + width)
        count = len(weights[part])
        whole = jax.tree.map(lambda *leaves: pad(np.stack(leaves), width), *weights[part])
        shifts, scales = pad(shift[part], width), pad(scale[part], width)
        outputs = []
        for block in blocks(x, rows, PREDICTION_ROWS):
            padded = pad(block, PREDICTION_ROWS) if several else block
            out = np.asarray(fn(jnp.int32(count), whole, shifts, scales, jnp.asarray(padded)))
            outputs.append(out[:count, : len(block)])
        found.append(np.concatenate(outputs, axis=1))
    return np.concatenate(found)
