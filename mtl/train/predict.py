"""Predictions of trained models, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mtl.data.streamed import Inputs, blocks
from mtl.inputs import count
from mtl.models import Model
from mtl.train import pack
from mtl.train import placement as placements
from mtl.train.placement import pad, stacked
from mtl.train.program import Weights
from mtl.train.stacks import columns

#: Predictions are made for at most so many inputs at a time.
PREDICTION_ROWS = 1024


#: (shift, scale, fill) of the inputs that programs take, float32 [...], of the leaves that have them; or None.
Coded = tuple[Any, Any, Any]


def predict(
    model: Model,
    tasks: Sequence[str],
    weights: Sequence[Weights],
    x: Inputs,
    scaling: Sequence[Coded] | None = None,
    *,
    rows: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return the outputs of some tasks' heads for inputs x, one set of weights after the other, on one device.

    The trunk is run once for all of them.

    Args:
      model: the model.
      tasks: their names.
      weights: one each a lane.
      x: inputs [N, …] as programs take them, in memory or streamed.
      scaling: what each lane's inputs are scaled with; by default nothing.
      rows: whose inputs, n of them; all if none.

    Returns:
      Of each task the outputs [lanes, n, *shape, task outputs].
    """
    width = placements.width_for(placements.MAP, len(weights))
    fn = pack.predict_fn(model, tuple(tasks), scaling is not None)
    most = count(x) if rows is None else len(rows)
    size = min(most, PREDICTION_ROWS)  # Of every block, so that all have the same program.
    scaling = [(None, None, None)] * len(weights) if scaling is None else scaling
    found = []
    for first in range(0, len(weights), width):
        part = slice(first, first + width)
        lanes = len(weights[part])
        whole = jax.tree.map(lambda *leaves: pad(np.stack(leaves), width), *weights[part])
        numbers = jax.tree.map(lambda *leaves: pad(np.stack(leaves), width), *scaling[part])
        outputs = []
        for block in blocks(x, rows, PREDICTION_ROWS):
            out = fn(np.int32(lanes), whole, numbers, stacked(block, size))
            outputs.append([np.asarray(a)[:lanes, : count(block)] for a in out])
        found.append([np.concatenate(blocks, axis=1) for blocks in zip(*outputs, strict=True)])
    groups = columns([model.task(name) for name in tasks])
    each = zip(groups, map(np.concatenate, zip(*found, strict=True)), strict=True)
    return {name: of_group[:, :, i] for group, of_group in each for i, name in enumerate(group.names)}
