"""The arrays that a pack shares: what they are, and how they come from a table and its splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mtl import params as paths
from mtl.data import Split, Table
from mtl.data.prior import prior_outputs
from mtl.data.scaling import Scaling, centred, centred_labels, coded
from mtl.data.streamed import Streamed
from mtl.inputs import each
from mtl.tasks import Task
from mtl.train.program import Numbers, Program, PyTree
from mtl.train.stacks import ordered


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pool:
    """Rows that have a present label in some role, padded to one length.

    Attributes:
      rows: indices into the table, [D, M]; zeros beyond ``count``. Of several tasks' pools [D, tasks, M].
      count: how many there are, [D], or [D, tasks].
    """

    rows: Numbers
    count: Numbers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Data:
    """The data a pack shares: inputs once, splits stacked (D of them).

    Attributes:
      tasks: names of the tasks that the columns below are of.
      x: inputs of the whole table, [N, …], or ``{leaf: [N, …]}``; where they are streamed, of a window's rows, [W, …].
      labels: numbers and class ids, float32 [D, N, tasks]; of a dense task, whose row of ``dense`` each row's are.
      train, val: present labels of that role, bool [D, N, tasks].
      own_rows: of each task, the rows with a training label of it.
      train_rows, val_rows: per pool name (see ``pool_name``), the rows with any present label of its tasks.
      shift, scale: per split, what inputs are scaled with, [D, …], or a dict of the leaves that are; else None.
      fill: per split, what a missing input becomes after scaling, [D, …], likewise; None if none is missing.
      prior: per split, the outputs that predict the prior of each task, [D, tasks, outputs], padded by zeros.
      place: where inputs are streamed, which row of x a row of the table is, int32 [N] (0 where it is not there);
        else ``()``.
      dense: of dense tasks, ``{task: (labels, which of them are present)}`` of the whole table, [N, *shape].
      units: per split, (a, b) of those whose labels are scaled: they train on a + b · labels, ``{task: [D, 2]}``.
    """

    tasks: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    x: PyTree
    labels: Numbers
    train: Numbers
    val: Numbers
    own_rows: Any
    train_rows: Mapping[str, Any]
    val_rows: Mapping[str, Any]
    prior: Numbers
    shift: PyTree = None
    scale: PyTree = None
    fill: PyTree = None
    place: PyTree = ()
    dense: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    units: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def table_rows(self) -> int:
        """N, the rows of the table."""
        return int(self.train.shape[1])

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """Return where the columns of some tasks are."""
        place = {name: i for i, name in enumerate(self.tasks)}
        return np.asarray([place[name] for name in names])

    def beside(self, numbers: Array, names: Sequence[str]) -> Array:
        """Return the columns of some tasks, [N, tasks], in that order."""
        # To pick each of 617 columns takes 30 ms a call.
        return numbers if tuple(names) == self.tasks else numbers[:, self.columns(names)]

    def of(self, split: Array) -> Data:
        """Return the data of one split, without the leading axis."""
        stacked = dataclasses.replace(self, x=None, place=None, dense={})
        own = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, split, 0, keepdims=False), stacked)
        return dataclasses.replace(own, x=self.x, place=self.place, dense=self.dense)

    def dense_labels(self, tasks: Sequence[Task], labels: Array) -> dict[str, tuple[Array, Array]]:
        """Return (labels, which are present) of the dense tasks among some, of one split.

        Args:
          tasks: in the order of the columns of ``labels``.
          labels: of some rows, [rows, tasks].
        """
        found = {}
        for i, task in enumerate(tasks):
            if task.shape:
                rows = labels[:, i].astype(jnp.int32)
                own, there = (jnp.take(a, rows, axis=0, mode="clip") for a in self.dense[task.name])
                if task.name in self.units:
                    own = self.units[task.name][0] + self.units[task.name][1] * own
                found[task.name] = own, there
        return found


def pool_name(tasks: Sequence[str]) -> str:
    """Return the name of the pool of rows that have a label of any of these tasks; no other tasks have it.

    >>> pool_name(("a", "b")), pool_name(("a+b",))
    ('a+b', 'a%2Bb')
    """
    return "+".join(paths.escaped(name, "+") for name in tasks)


def make_data(
    table: Table,
    splits: Sequence[Split],
    programs: Sequence[Program],
    val_rows: int,
    scalings: Sequence[Scaling] | None = None,
    names: Sequence[Mapping[str, str]] | None = None,
) -> Data:
    """Return the data on the device: inputs once (unless streamed), splits stacked, with the programs' pools.

    Args:
      table: the data set.
      splits: distinct splits, in the order that ``Hypers.split`` counts them.
      programs: the programs that will run on them.
      val_rows: the most validation rows that a split of this kind can have. Validation batches are padded to it,
        whatever the splits at hand, so that a trial's losses are summed in one order alone and in any pack.
      scalings: what each split's inputs and labels are scaled with; by default nothing.
      names: of each split, what the programs' tasks are called in the table; by default as the programs call them.
    """
    specs = list(dict.fromkeys(t for p in programs for t in ordered(p)))  # As a program has its columns.
    columns = [t.name for t in specs]
    called = [dict(zip(columns, columns, strict=True))] * len(splits) if names is None else names
    pools = sorted({p.tasks for p in programs})
    # No pool is shorter, so that programs of one task and of several differ in few shapes.
    longest = max(int(s.train[of[t]].sum()) for s, of in zip(splits, called, strict=True) for t in columns)
    scalings = [Scaling()] * len(splits) if scalings is None else scalings
    scaled = any(p.standardize for p in programs)
    shift, scale, fill = _stacked([coded(table, s) for s in scalings]) if scaled else (None, None, None)
    lanes = list(zip(splits, scalings, called, strict=True))
    dense, units = _dense(table, [t.name for t in specs if t.shape], scalings)

    def pool(tasks: Sequence[str], role: str, at_least: int) -> Pool:
        return _pool([_any(getattr(s, role), [of[t] for t in tasks]) for s, _, of in lanes], at_least)

    data = Data(
        tasks=tuple(columns),
        x=() if isinstance(table.x, Streamed) else device_inputs(table, scaled),
        labels=_matrix([[c.labels(of[t], s.labels[of[t]]) for t in columns] for s, c, of in lanes], np.float32),
        train=_matrix([[s.train[of[t]] for t in columns] for s, _, of in lanes], bool),
        val=_matrix([[s.val[of[t]] for t in columns] for s, _, of in lanes], bool),
        own_rows=jax.tree.map(lambda *a: np.stack(a, axis=1), *(pool([t], "train", longest) for t in columns)),
        train_rows={pool_name(p): pool(p, "train", longest) for p in pools},
        val_rows={pool_name(p): pool(p, "val", val_rows) for p in pools},
        prior=np.stack([_priors(table, s, specs, of) for s, _, of in lanes]),
        shift=shift,
        scale=scale,
        fill=fill,
        dense=dense,
        units=units,
    )
    return jax.tree.map(jnp.asarray, data)


def _priors(table: Table, split: Split, tasks: Sequence[Task], called: Mapping[str, str]) -> np.ndarray:
    found = [prior_outputs(table, split, dataclasses.replace(t, name=called[t.name])) for t in tasks]
    widest = max(len(outputs) for outputs in found)
    return np.stack([np.pad(outputs, (0, widest - len(outputs))) for outputs in found]).astype(np.float32)


def _dense(table: Table, names: Sequence[str], scalings: Sequence[Scaling]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (labels and positions of dense tasks, their units in each split), see ``Data``."""
    dense, units = {}, {}
    for name in names:
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


def inputs(standardize: bool, data: Data, rows: Array) -> PyTree:
    """Return the inputs of some rows, scaled as the split says if asked."""
    if not isinstance(data.place, tuple):
        rows = jnp.take(data.place, rows, mode="clip")
    x = jax.tree.map(lambda a: jnp.take(a, rows, axis=0, mode="clip"), data.x)
    return standardized(x, data.shift, data.scale, data.fill) if standardize else x


def standardized(x: PyTree, shift: PyTree, scale: PyTree, fill: PyTree) -> PyTree:
    """Return (x − shift) · scale, and ``fill`` where x is missing; leaves without them as they are."""

    def one(x: Array, shift: Array | None, scale: Array | None, fill: Array | None) -> Array:
        if shift is None or scale is None:
            return x
        found = (x - shift[None]) * scale[None]
        return found if fill is None else jnp.where(jnp.isnan(x), fill[None], found)

    return each(one, x, shift, scale, fill)
