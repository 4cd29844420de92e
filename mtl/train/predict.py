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
from mtl.train.compiled import Call
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
    size = _block_rows(len(x if rows is None else rows))
    found = []
    for first in range(0, len(weights), width):
        part = slice(first, first + width)
        count = len(weights[part])
        whole = jax.tree.map(lambda *leaves: pad(np.stack(leaves), width), *weights[part])
        shifts, scales = pad(shift[part], width), pad(scale[part], width)
        outputs = []
        for block in blocks(x, rows, PREDICTION_ROWS):
            out = np.asarray(fn(np.int32(count), whole, shifts, scales, pad(block, size)))
            outputs.append(out[:count, : len(block)])
        found.append(np.concatenate(outputs, axis=1))
    return np.concatenate(found)


def predict_calls(
    model: Model, task: str, weights: Weights, lanes: int, shape: tuple[int, ...], rows: int, *, standardize: bool
) -> list[Call]:
    """Return what ``predict`` will call.

    Args:
      model, task, standardize: as ``predict`` will be given them.
      weights: those of one lane; shapes are enough.
      lanes: how many sets of weights.
      shape: of one input.
      rows: how many inputs.
    """
    width = executors.width_for(executors.MAP, lanes)
    whole = jax.tree.map(lambda a: jax.ShapeDtypeStruct((width, *a.shape), a.dtype), weights)
    each = jax.ShapeDtypeStruct((width, *shape), jnp.float32)
    x = jax.ShapeDtypeStruct((_block_rows(rows), *shape), jnp.float32)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    return [(pack.predict_fn(model, task, standardize), (count, whole, each, each, x))]


def _block_rows(rows: int) -> int:
    """Return how many inputs a call takes: all, or of many so many that every block has the same."""
    return min(rows, PREDICTION_ROWS)
