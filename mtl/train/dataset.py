"""From a table and its splits to the arrays that a pack shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl.data import Split, Table
from mtl.data.prior import prior_loss
from mtl.data.scaling import Scaling, centred, centred_labels, coded
from mtl.data.streamed import Streamed
from mtl.inputs import each
from mtl.train.program import Data, Pool, Program, pool_name
from mtl.train.stacks import ordered


def make_data(
    table: Table,
    splits: Sequence[Split],
    programs: Sequence[Program],
    val_rows: int,
    scalings: Sequence[Scaling] | None = None,
    relative: bool = False,
) -> Data:
    """Return the data on the device: inputs once (unless streamed), splits stacked, with the programs' pools.

    Args:
      table: the data set.
      splits: distinct splits, in the order that ``Hypers.split`` counts them.
      programs: the programs that will run on them.
      val_rows: the most validation rows that a split of this kind can have. Validation batches are padded to it,
        whatever the splits at hand, so that a trial's losses are summed in one order alone and in any pack.
      scalings: what each split's inputs and labels are scaled with; by default nothing.
      relative: whether validation losses are taken relative to those of predicting the prior.
    """
    names = list(dict.fromkeys(t.name for p in programs for t in ordered(p)))  # As a program has its columns.
    pools = sorted({p.tasks for p in programs})
    # No pool is shorter, so that programs of one task and of several differ in few shapes.
    longest = max(int(s.train[t].sum()) for s in splits for t in names)
    scalings = [Scaling()] * len(splits) if scalings is None else scalings
    scaled = any(p.standardize for p in programs)
    shift, scale, fill = _stacked([coded(table, s) for s in scalings]) if scaled else (None, None, None)
    pairs = list(zip(splits, scalings, strict=True))
    dense, units = _dense(table, names, scalings)
    data = Data(
        tasks=tuple(names),
        x=() if isinstance(table.x, Streamed) else device_inputs(table, scaled),
        labels=_matrix([[c.labels(t, s.labels[t]) for t in names] for s, c in pairs], np.float32),
        train=_matrix([[s.train[t] for t in names] for s in splits], bool),
        val=_matrix([[s.val[t] for t in names] for s in splits], bool),
        own_rows=jax.tree.map(
            lambda *a: np.stack(a, axis=1), *(_pool([s.train[t] for s in splits], longest) for t in names)
        ),
        train_rows={pool_name(p): _pool([_any(s.train, p) for s in splits], longest) for p in pools},
        val_rows={pool_name(p): _pool([_any(s.val, p) for s in splits], val_rows) for p in pools},
        shift=shift,
        scale=scale,
        fill=fill,
        dense=dense,
        units=units,
        prior=np.asarray([[prior_loss(table, s, t) for t in names] for s in splits], np.float32) if relative else None,
    )
    return jax.tree.map(jnp.asarray, data)


def _dense(table: Table, names: Sequence[str], scalings: Sequence[Scaling]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (labels and positions of the dense tasks among some, their units in each split), see ``Data``."""
    dense, units = {}, {}
    for name in names:
        if name not in table.positions:
            continue
        if len(table) > _ROWS:
            raise ValueError(f'data "{table.name}": {len(table):,} rows with a dense task: must be at most {_ROWS:,}')
        labels = table.labels[name]
        if table.task(name).scaled:  # Held once for all splits.
            labels, origin, unit = centred_labels(table, name)
            own = [s.units.get(name, (0.0, 1.0)) for s in scalings]
            units[name] = np.asarray([[(origin - m) / s, unit / s] for m, s in own], np.float32)
        dense[name] = labels.astype(np.float32) if labels.dtype == np.float64 else labels, table.positions[name]
    return dense, units


#: Rows that can be counted in the float32 of a label.
_ROWS = 2**24


def device_inputs(table: Table, scaled: bool) -> Any:
    """Return the inputs [N, …] in memory that programs take, float32, or int32 ids: centred first where scaled."""
    x = centred(table)[0] if scaled else table.x
    return each(lambda leaf, ids: leaf if ids else np.asarray(leaf, np.float32), x, table.vocabulary)


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _matrix(columns: Sequence[Sequence[np.ndarray]], kind: type) -> np.ndarray:
    """Return columns, given for each split and task, as [D, N, tasks]."""
    return np.stack([np.stack([c.astype(kind) for c in of], axis=1) for of in columns])


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
    return Pool(padded.astype(np.int32), counts.astype(np.int32))
