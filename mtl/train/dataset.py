"""From a table and its splits to the arrays that a pack shares."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from mtl.data import Split, Table
from mtl.data.streamed import Inputs, Streamed, blocks
from mtl.train.program import Data, Pool, Program, pool_name


def make_data(table: Table, splits: Sequence[Split], programs: Sequence[Program], val_rows: int) -> Data:
    """Return the data on the device: inputs once (unless streamed), splits stacked, with the programs' pools.

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
    standardized = any(p.standardize for p in programs)  # Statistics that nobody reads are not worth a pass.
    shift, scale = zip(*(statistics(table, s) if standardized else nothing(table) for s in splits), strict=True)
    return Data(
        x=() if isinstance(table.x, Streamed) else jnp.asarray(table.x),
        labels={t: jnp.asarray(np.stack([s.labels[t] for s in splits])) for t in names},
        train={t: jnp.asarray(np.stack([s.train[t] for s in splits])) for t in names},
        val={t: jnp.asarray(np.stack([s.val[t] for s in splits])) for t in names},
        train_rows={pool_name(p): _pool([_any(s.train, p) for s in splits], longest) for p in pools},
        val_rows={pool_name(p): _pool([_any(s.val, p) for s in splits], val_rows) for p in pools},
        shift=jnp.asarray(np.stack(shift)),
        scale=jnp.asarray(np.stack(scale)),
    )


@functools.lru_cache(maxsize=256)
def statistics(table: Table, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return (mean, 1/standard deviation) of the inputs over all rows that have a training label.

    Validation and test rows take no part. A constant input keeps its scale. Rows are added up one after the other in
    float64, in memory and streamed alike.
    """
    rows = np.flatnonzero(np.any(np.stack(list(split.train.values())), axis=0))
    mean = _sum(table.x, rows, lambda x: x) / len(rows)
    deviation = np.sqrt(_sum(table.x, rows, lambda x: (x - mean) ** 2) / len(rows))
    return mean.astype(np.float32), (1 / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def nothing(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the statistics with which standardising would change nothing."""
    return np.zeros(table.x.shape[1:], np.float32), np.ones(table.x.shape[1:], np.float32)


def _sum(x: Inputs, rows: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    total = np.zeros(x.shape[1:])
    for block in blocks(x, rows):
        for row in change(block.astype(np.float64)):
            total += row
    return total


def _any(masks: dict[str, np.ndarray], tasks: Sequence[str]) -> np.ndarray:
    return np.any(np.stack([masks[t] for t in tasks]), axis=0)


def _pool(masks: list[np.ndarray], at_least: int) -> Pool:
    """Return the rows of each mask, padded to a power of two so that near sizes share an executable."""
    found = [np.flatnonzero(m) for m in masks]
    longest = max(at_least, *(len(rows) for rows in found))
    length = 1 << (longest - 1).bit_length()
    padded = np.stack([np.pad(rows, (0, length - len(rows))) for rows in found])
    counts = np.asarray([len(rows) for rows in found])
    # In NumPy, as JAX would compile a program for each shape that it converts.
    return Pool(jnp.asarray(padded.astype(np.int32)), jnp.asarray(counts.astype(np.int32)))
