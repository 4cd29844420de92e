"""What inputs and numbers to predict are scaled with: fitted once a replicate, the same for every regime and size.

Everything is computed in float64 before any cast, from the values that are there. A network then sees

    (x − shift) · scale,   a missing x taken as fill,

and of a regression (y − mean) / spread, so that neither the unit of an input nor that of a label decides anything.
Where inputs are a dict, so is what is said of them here, of the leaves that are scaled; ids never are.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mtl.data.splits import Split
from mtl.data.streamed import Inputs, Streamed, blocks
from mtl.data.table import Table, range_of
from mtl.inputs import by_name, each, leaves
from mtl.tasks import Task

#: What ``data.normalize`` can be: ``auto`` scales what was measured, ``standardize`` pixels too, ``none`` no input.
Way = Literal["auto", "standardize", "none"]

#: Casting to float32 may move a value by at most this share of its column's spread.
_LOSS = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """A replicate's scaling.

    Attributes:
      shift, scale: of the inputs, float64 [...], or ``{leaf: [...]}``; ``None`` where inputs are taken as they are.
      fill: what a missing input is taken as, in the input's own unit, NaN where none was missing when it was fitted.
      units: ``{task: (mean, spread)}`` of the regressions' training labels.

    >>> Scaling(np.array([300.0]), np.array([0.5]), np.array([301.0])).inputs(np.array([[302.0], [np.nan]])).tolist()
    [[1.0], [0.5]]
    """

    shift: np.ndarray | Mapping[str, np.ndarray] | None = None
    scale: np.ndarray | Mapping[str, np.ndarray] | None = None
    fill: np.ndarray | Mapping[str, np.ndarray] | None = None
    units: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)

    def inputs(self, x: Any, vocabulary: Any = None) -> Any:
        """Return what a network sees of inputs x [n, ...], float32; of ids, which have a vocabulary, int32."""
        return each(_seen, x, self.shift, self.scale, self.fill, vocabulary)

    def labels(self, task: str, y: np.ndarray) -> np.ndarray:
        """Return what a loss sees of a task's labels y, float32 of numbers."""
        mean, spread = self.units.get(task, (0.0, 1.0))
        return ((y - mean) / spread).astype(np.float32) if y.dtype == np.float64 else y

    def outputs(self, task: str, z: np.ndarray) -> np.ndarray:
        """Return a head's outputs z in the label's own unit, float64 of a regression."""
        if task not in self.units:
            return z
        mean, spread = self.units[task]
        return mean + spread * z.astype(np.float64)

    def squared(self, task: str) -> float:
        """Return what a loss of a task is multiplied by to be in its own unit: spread², 1 but for a regression."""
        return self.units[task][1] ** 2 if task in self.units else 1.0

    def tree(self) -> dict[str, Any]:
        """Return the arrays that are kept with a model; ``restore`` reads them."""
        inputs = {"shift": self.shift, "scale": self.scale, "fill": self.fill}
        found: dict[str, Any] = {k: v for k, v in inputs.items() if v is not None}
        units = {task: np.asarray(unit, np.float64) for task, unit in self.units.items()}
        return found | ({"units": units} if units else {})


def restore(tree: Mapping[str, Any]) -> Scaling:
    """Return the scaling whose ``tree`` that is.

    >>> restore(Scaling(np.zeros(1), np.ones(1), units={"y": (1.0, 2.0)}).tree()).units
    {'y': (1.0, 2.0)}
    """
    units = {task: (float(unit[0]), float(unit[1])) for task, unit in tree.get("units", {}).items()}
    return Scaling(tree.get("shift"), tree.get("scale"), tree.get("fill"), units)


def _seen(x: Any, shift: Any, scale: Any, fill: Any, vocabulary: int | None) -> np.ndarray:
    if shift is None or scale is None:
        return np.asarray(x, np.int32 if vocabulary else np.float32)
    x = np.asarray(x, np.float64)
    x = x if fill is None else np.where(np.isnan(x), fill, x)
    return _narrow((x - shift) * scale)


def chosen(table: Table, way: str) -> Any:
    """Return which inputs are scaled, booleans of the shape of one row's.

    Ids and indicators never are; pixels only where they are asked to be.

    Args:
      table: the data.
      way: one of ``Way``.
    """

    def of(x: np.ndarray | Streamed, measured: np.ndarray | None, vocabulary: int | None) -> np.ndarray:
        if way == "none" or measured is None:
            return np.full(x.shape[1:], way == "standardize" and not vocabulary)
        return measured

    return each(of, table.x, table.measured, table.vocabulary)


def counts(table: Table, own: Scaling) -> dict[str, int]:
    """Return how many inputs there are, how many of them were measured, and how many a scaling moves."""
    pairs = zip(leaves(own.shift), leaves(own.scale), strict=True)
    return {
        "all": sum(int(np.prod(leaf.shape[1:])) for leaf in leaves(table.x)),
        "measured": sum(int(leaf.sum()) for leaf in leaves(table.measured)),
        "scaled": sum(int(((shift != 0) | (scale != 1)).sum()) for shift, scale in pairs),
    }


def changes(table: Table, way: str) -> bool:
    """Return whether a network sees other inputs than the table's: some are scaled, or missing and filled in."""
    return any(leaf.any() for leaf in leaves(chosen(table, way))) or table.gaps is not None


@functools.lru_cache(maxsize=1024)
def fit(table: Table, split: Split, way: str = "auto", tasks: tuple[str, ...] = ()) -> Scaling:
    """Return the scaling of a replicate.

    Inputs are fitted on ``split.pool``: the training rows of the source and the target pools, labelled or not, which
    are the same for every regime and every number of labels. Validation and test rows take no part. The mean and the
    spread √(Σ (x − mean)²/n) are those of the readings that are there; an input that is constant keeps its scale, and
    a missing one is taken as the mean. Labels are fitted on each task's own training labels.

    Args:
      table: the data.
      split: of it.
      way: see ``Way``.
      tasks: for a control: inputs are fitted on the rows that have a training label of these alone.
    """
    units = {t.name: _unit(training_labels(table, split, t)) for t in _scaled_tasks(table, split)}
    if not changes(table, way):
        return Scaling(units=units)
    rows = np.flatnonzero(np.any(np.stack([split.train[t] for t in tasks]), axis=0) if tasks else split.pool)
    found = each(functools.partial(_fitted, rows), table.x, chosen(table, way), table.gaps)
    return Scaling(_part(found, 0), _part(found, 1), _part(found, 2), units)


def _fitted(
    rows: np.ndarray, x: np.ndarray | Streamed, scaled: np.ndarray, gaps: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return (shift, scale, fill) of a leaf."""
    if gaps is None and not scaled.any():
        return None, None, None
    mean, spread = moments(x, rows)
    shift, scale = np.where(scaled, mean, 0.0), np.where(scaled, 1 / spread, 1.0)
    return shift, scale, None if gaps is None else np.where(gaps, mean, np.nan)


def _part(found: Any, part: int) -> Any:
    """Return a part of what was found for each leaf, of those that have it; None if none does."""
    if not isinstance(found, dict):
        return found[part]
    return {leaf: parts[part] for leaf, parts in found.items() if parts[part] is not None} or None


def moments(x: np.ndarray | Streamed, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (mean, spread) of each input over some rows, of the readings that are there; (0, 1) where none is.

    Two passes in float64. The spread of a constant is 1.
    """
    shape = x.shape[1:]
    low, high, total, count = np.full(shape, np.inf), np.full(shape, -np.inf), np.zeros(shape), np.zeros(shape)
    for block in blocks(x, rows):
        low, high = np.fmin(low, np.fmin.reduce(block, axis=0)), np.fmax(high, np.fmax.reduce(block, axis=0))
        total += np.nan_to_num(block.astype(np.float64)).sum(axis=0)
        count += (~np.isnan(block)).sum(axis=0)
    count = np.maximum(count, 1)
    # Clipped, as a sum rounds: the mean of a constant is that constant.
    mean = np.where(high < low, 0.0, np.clip(total / count, low, np.where(high < low, np.inf, high)))
    squares = np.zeros(shape)
    for block in blocks(x, rows):
        squares += (np.nan_to_num(block.astype(np.float64) - mean) ** 2).sum(axis=0)
    spread = np.sqrt(squares / count)
    return mean, np.where((high > low) & (spread > 0), spread, 1.0)


@functools.lru_cache(maxsize=4)
def centred(table: Table) -> tuple[Any, Any, Any]:
    """Return (x, origin, unit): inputs as float32 in which nothing is lost that a scaling keeps.

    x is (inputs − origin) / unit, where origin and unit are the median and the range of the middle half over all rows
    of what was measured, and 0 and 1 elsewhere: a value far off, in whatever row, must not make all others equal in
    float32. No scaling depends on them: ``coded`` takes them back, so that what a network sees is (inputs − shift) ·
    scale whatever they are. Ids are as they are.
    """
    found = each(_centred, table.x, table.measured)
    return _part(found, 0), _part(found, 1), _part(found, 2)


def _centred(x: np.ndarray | Streamed, measured: np.ndarray | None) -> tuple[Inputs, np.ndarray, np.ndarray]:
    shape = x.shape[1:]
    # Where float32 holds all there is, its own rounding is as large as that of a subtraction: as read, or as streamed.
    if measured is None or isinstance(x, Streamed) or x.dtype != np.float64:
        return x, np.zeros(shape), np.ones(shape)
    ranked = np.sort(x.astype(np.float64), axis=0)  # What is missing comes last.
    last = np.maximum(len(x) - 1 - np.isnan(ranked).sum(axis=0), 0)
    low, middle, high = (np.take_along_axis(ranked, (last * part // 4)[None], axis=0)[0] for part in (1, 2, 3))
    moves = measured & (high > low)
    origin = np.where(measured & ~np.isnan(middle), middle, 0.0)
    unit = np.where(moves, high - low, 1.0)
    x = np.concatenate([_narrow((block - origin) / unit) for block in blocks(x)])
    x.setflags(write=False)
    return x, origin, unit


@functools.lru_cache(maxsize=4)
def centred_labels(table: Table, task: str) -> tuple[np.ndarray, float, float]:
    """Return (y, origin, unit): a dense task's numbers as float32 in which nothing is lost that a scaling keeps.

    y is (labels − origin) / unit, 0 where missing, by the median and the range of the middle half, as in ``centred``.
    """
    labels, there = table.labels[task], table.positions[task]
    low, middle, high = (float(v) for v in np.quantile(labels[there], (0.25, 0.5, 0.75)))
    unit = high - low if high > low else 1.0
    y = np.where(there, _narrow((labels - middle) / unit), np.float32(0))
    y.setflags(write=False)
    return y, middle, unit


def coded(table: Table, scaling: Scaling) -> tuple[Any, Any, Any]:
    """Return (shift, scale, fill), float32, that do to ``centred`` inputs what a scaling does to the table's.

    ``fill`` is what a missing input becomes after scaling; None where none is missing. Of ids, and of leaves that are
    not scaled, all are None.
    """
    _, origin, unit = centred(table)
    found = each(_coded, origin, unit, scaling.shift, scaling.scale, scaling.fill, table.gaps)
    return _part(found, 0), _part(found, 1), _part(found, 2)


def _coded(
    origin: np.ndarray, unit: np.ndarray, shift: Any, scale: Any, fill: Any, gaps: Any
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    if shift is None and not origin.any() and (unit == 1).all():
        return None, None, None
    shift = np.zeros(origin.shape) if shift is None else shift
    scale = np.ones(origin.shape) if scale is None else scale
    fill = np.zeros(origin.shape) if fill is None else np.nan_to_num((fill - shift) * scale)
    found = (((shift - origin) / unit), scale * unit, fill)
    shift, scale, fill = (part.astype(np.float32) for part in found)
    return shift, scale, None if gaps is None else fill


def check_cast(table: Table) -> None:
    """Check that inputs that are taken as they are can be told apart in float32, in which networks compute.

    Raises:
      ValueError: for an input whose values differ by less than float32 can hold.
    """
    for leaf, x in by_name(table.x).items():
        if isinstance(x, Streamed) or x.dtype != np.float64:  # The door keeps float64 where a cast moves values.
            continue
        mean, spread = moments(x, np.arange(len(table)))
        moved = np.zeros(spread.shape)
        for block in blocks(x):
            moved = np.fmax(moved, np.fmax.reduce(np.abs(block - block.astype(np.float32)), axis=0))
        if (bad := np.flatnonzero((moved > _LOSS * spread) & (moved > 0))).size:
            at = int(bad[0])
            raise ValueError(
                f"{table.column(at, leaf)} of {table.name} spreads by {spread.flat[at]:.3g} around "
                f"{mean.flat[at]:.9g}, which float32 cannot tell apart: must be scaled"
            )


def _narrow(x: np.ndarray) -> np.ndarray:
    """Return float32; what it cannot hold, far off as it is, becomes the largest that it can."""
    most = float(np.finfo(np.float32).max)
    return np.clip(x, -most, most).astype(np.float32)


def _scaled_tasks(table: Table, split: Split) -> Sequence[Task]:
    return [t for t in table.tasks if t.scaled and t.name in split.labels]


def training_labels(table: Table, split: Split, task: Task) -> np.ndarray:
    """Return a task's labels in train, of a dense one those at all positions."""
    found = split.labels[task.name][split.train[task.name]]
    return table.present_labels(task.name, found) if task.shape else found


def _unit(labels: np.ndarray) -> tuple[float, float]:
    """Return (mean, spread) of a regression's training labels; the spread of a constant is 1."""
    if not len(labels):
        return 0.0, 1.0
    y = labels.astype(np.float64)
    mean = float(np.clip(y.mean(), y.min(), y.max()))
    spread = float(np.sqrt(np.mean((y - mean) ** 2)))
    return mean, spread if spread > 0 and y.max() > y.min() else 1.0


@functools.lru_cache(maxsize=4)
def described(table: Table) -> dict[str, Any]:
    """Return what a model's file says of its inputs and labels: JSON-able, and all it takes to read new ones alike."""
    x, ids = table.x, table.vocabulary
    pixels = each(lambda _, measured, ids: measured is None and not ids, x, table.measured, ids)
    found = {
        "shape": each(lambda leaf: list(leaf.shape[1:]), x),
        "pixels": pixels,
        "unit_range": each(lambda leaf, pixels: pixels and _in_unit_range(*range_of(leaf)), x, pixels),
        "columns": each(lambda _, columns: list(columns or ()), x, table.columns or None),
        "gaps": each(lambda _, gaps: [] if gaps is None else [int(i) for i in np.flatnonzero(gaps)], x, table.gaps),
        "reading": dict(table.reading),
        "classes": {task: list(names) for task, names in table.classes.items()},
        **({"vocabulary": ids} if ids else {}),
    }
    same: dict[str, Any] = json.loads(json.dumps(found))  # As it comes out of a file: tuples are lists.
    return same


def _in_unit_range(low: float, high: float) -> bool:
    return low >= 0 and high <= 1
