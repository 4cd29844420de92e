"""From a table and its splits to the arrays that a pack shares."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mtl.data import Split, Table
from mtl.train.program import Data, Pool, Program, pool_name


def make_data(table: Table, splits: Sequence[Split], programs: Sequence[Program], val_rows: int) -> Data:
    """Return the data on the device: inputs once, splits stacked, with every pool that the programs draw from.

    Args:
      table: the data set.
      splits: distinct splits, in the order that ``Lane.split`` counts them.
      programs: the programs that will run on them.
      val_rows: the most validation rows that a split of this kind can have. Validation batches are padded to it,
        whatever the splits at hand, so that a trial's losses are summed in one order alone and in any pack.
    """
    names = sorted({t for p in programs for t in p.tasks})
    pools = sorted({p.tasks for p in programs} | {(t,) for t in names})
    # One length for all single-task pools, as temperature sampling stacks them.
    longest = max(int(s.train[t].sum()) for s in splits for t in names)
    shift, scale = zip(*(statistics(table, s) for s in splits), strict=True)
    return Data(
        x=jnp.asarray(table.x),
        labels={t: jnp.asarray(np.stack([s.labels[t] for s in splits])) for t in names},
        train={t: jnp.asarray(np.stack([s.train[t] for s in splits])) for t in names},
        val={t: jnp.asarray(np.stack([s.val[t] for s in splits])) for t in names},
        train_rows={pool_name(p): _pool([_any(s.train, p) for s in splits], longest) for p in pools},
        val_rows={pool_name(p): _pool([_any(s.val, p) for s in splits], val_rows) for p in pools},
        shift=jnp.asarray(np.stack(shift)),
        scale=jnp.asarray(np.stack(scale)),
    )


def statistics(table: Table, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return (mean, 1/standard deviation) of the inputs over all rows that have a training label.

    Validation and test rows take no part. A constant input keeps its scale.
    """
    rows = np.any(np.stack(list(split.train.values())), axis=0)
    x = table.x[rows].astype(np.float64)
    deviation = x.std(axis=0)
    return x.mean(axis=0).astype(np.float32), (1 / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def _any(masks: dict[str, np.ndarray], tasks: Sequence[str]) -> np.ndarray:
    return np.any(np.stack([masks[t] for t in tasks]), axis=0)


def _pool(masks: list[np.ndarray], at_least: int) -> Pool:
    """Return the rows of each mask, padded to a power of two so that near sizes share an executable."""
    found = [np.flatnonzero(m) for m in masks]
    longest = max(at_least, *(len(rows) for rows in found))
    length = 1 << (longest - 1).bit_length()
    padded = np.stack([np.pad(rows, (0, length - len(rows))) for rows in found])
    return Pool(jnp.asarray(padded, jnp.int32), jnp.asarray([len(rows) for rows in found], jnp.int32))
