"""A table: inputs, labels and label masks; ``make_table`` is the one door by which data enter."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl.data.first_rows import FirstRows
from mtl.data.leaf import Leaf, make_leaf, numbers
from mtl.data.streamed import Inputs, Streamed, blocks
from mtl.inputs import Shape, count, each, leaves, structure
from mtl.tasks import KINDS, Task, suggest

#: The parts that data may come in; ``Table.part`` holds their numbers.
PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """N examples of one kind of input with the labels of several tasks; built by ``make_table`` only.

    Every array is read-only: tables are cached and shared between trials.

    Args:
      name: the name of the data.
      x: inputs, [N, ...], float32, or float64 where float32 would move a value; in memory, or streamed. Finite, but
        for missing ones, which are NaN. Ids are int32. Or several leaves, ``{leaf: [N, ...]}``; what is below of inputs
        is then a dict too, of the leaves that have it.
      tasks: what can be predicted, in order.
      labels: ``{task: [N]}``, and ``[N, *shape]`` of a dense task: int32 class ids, float32 zeros and ones, or float64
        numbers; 0 where missing.
      mask: ``{task: [N]}``, true where the label is present, at any position.
      sha256: of the names, kinds, shapes, dtypes and bytes of all of the above, tasks in sorted order.
      about: what the data are, their source and licence.
      groups: [N] int64, equal for rows that no split may part (copies, one molecule, one person); None if
        every row stands for itself.
      classes: ``{task: names}``, what class id i is called, for tasks whose classes have names.
      measured: which inputs were measured, booleans of the shape of one row's; the others are indicators, 0 or 1.
        None for pixels.
      gaps: which inputs some row lacks, booleans likewise; None if none does.
      columns: what the inputs are called, in order; empty if they have no names.
      vocabulary: how many ids there are, where x holds ids; else None.
      reading: JSON-able facts on how a raw input becomes x, such as the size of pictures; kept with models.
      told: sentences on how cells were read, where it might be doubted, or was decided.
      decided: how many of these, the first ones, only say what was decided: what each column is taken for.
      positions: ``{task: [N, *shape]}`` of dense tasks, true at the positions whose label is present.
      part: [N] int8, which of ``PARTS`` each row is of, as the data themselves say; None if all are for training.
        Splits go by it if they are asked for the official one.

    >>> table = make_table("toy", np.eye(3), [Task("even", "binary")], {"even": [1, 0, float("nan")]})
    >>> len(table), table.labels["even"], table.mask["even"]
    (3, array([1., 0., 0.], dtype=float32), array([ True,  True, False]))
    """

    name: str
    x: Inputs
    tasks: tuple[Task, ...]
    labels: dict[str, np.ndarray]
    mask: dict[str, np.ndarray]
    sha256: str
    about: str = ""
    groups: np.ndarray | None = None
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    measured: np.ndarray | Mapping[str, np.ndarray] | None = None
    gaps: np.ndarray | Mapping[str, np.ndarray] | None = None
    columns: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    vocabulary: int | Mapping[str, int] | None = None
    reading: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    told: tuple[str, ...] = ()
    positions: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    part: np.ndarray | None = None
    decided: int = 0

    def __len__(self) -> int:
        """Return N, the number of examples."""
        return count(self.x)

    @property
    def shape(self) -> Shape:
        """What one input is.

        >>> make_table("toy", np.eye(2), [Task("even", "binary")], {"even": [1, 0]}).shape
        (2,)
        """
        return structure(self.x, self.vocabulary)

    def task(self, name: str) -> Task:
        """Return the task of that name.

        Raises:
          ValueError: for a name that is no task of this table, with the nearest one and all of them.

        >>> table = make_table("toy", np.eye(2), [Task("even", "binary")], {"even": [1, 0]})
        >>> table.task("evn")
        Traceback (most recent call last):
        ...
        ValueError: data "toy" has no task "evn": did you mean "even"? Valid: even
        """
        for task in self.tasks:
            if task.name == name:
                return task
        raise ValueError(f'data "{self.name}" has no task "{name}": {suggest(name, (t.name for t in self.tasks))}')

    def rows(self, name: str) -> np.ndarray:
        """Return the indices, ascending, of the rows at which the label of task ``name`` is present.

        Raises:
          ValueError: for a name that is no task of this table.

        >>> table = make_table("toy", np.eye(2), [Task("even", "binary")], {"even": [float("nan"), 0]})
        >>> table.rows("even")
        array([1])
        """
        return np.flatnonzero(self.mask[self.task(name).name])

    def label_of(self, name: str) -> np.ndarray:
        """Return what a split keeps of a task's labels, [N]: themselves, or of a dense task whose row each one is.

        >>> table = make_table("toy", np.eye(2), [Task("even", "binary")], {"even": [float("nan"), 0]})
        >>> table.label_of("even")
        array([0., 0.], dtype=float32)
        """
        return np.arange(len(self), dtype=np.int64) if name in self.positions else self.labels[name]

    def present_labels(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return the labels of a task that are present in some rows, one after the other; of a dense one, at positions.

        Args:
          name: the task's.
          rows: indices, or [N] booleans.
        """
        labels, mask = self.labels[name][rows], self.positions.get(name, self.mask[name])[rows]
        return labels[mask]

    @property
    def range(self) -> Any:
        """The least and the greatest input that is there, of each leaf.

        >>> make_table("toy", np.eye(2), [Task("even", "binary")], {"even": [1, 0]}).range
        (0.0, 1.0)
        """
        return each(range_of, self.x)

    def column(self, index: int, leaf: str = "") -> str:
        """Return what to call an input of a table [N, F], or of a leaf [N, F], in a sentence.

        >>> make_table("toy", np.eye(2), [Task("even", "binary")], {"even": [1, 0]}, columns=["age", "sex"]).column(1)
        'column "sex"'
        """
        columns = self.columns.get(leaf) if isinstance(self.columns, Mapping) else self.columns
        named = f'column "{columns[index]}"' if columns else f"input {index}"
        return f"{named} of {leaf}" if leaf else named


def range_of(x: np.ndarray | Streamed) -> tuple[float, float]:
    """Return the least and the greatest number of one leaf that is there."""
    return x.range if isinstance(x, Streamed) else (float(np.fmin.reduce(x, None)), float(np.fmax.reduce(x, None)))


def make_table(
    name: str,
    x: npt.ArrayLike | Streamed | Mapping[str, npt.ArrayLike | Streamed],
    tasks: Sequence[Task],
    labels: Mapping[str, npt.ArrayLike],
    about: str = "",
    groups: npt.ArrayLike | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
    columns: Sequence[str] | Mapping[str, Sequence[str]] = (),
    pixels: bool | Mapping[str, bool] | None = None,
    missing_inputs: str | Mapping[str, str] = "error",
    reading: Mapping[str, Any] | None = None,
    vocabulary: int | Mapping[str, int] | None = None,
    part: npt.ArrayLike | None = None,
) -> Table:
    """Check data where they enter and turn missing labels into masks, once.

    A missing label is NaN in an array of floats, or −1 among class ids. −1 is *not* a missing binary label:
    data coded −1/+1 would lose every negative without a word.

    Args:
      name: the name of the data.
      x: inputs, [N, ...] numbers or booleans, N ≥ 1, an axis of features or more. Streamed ones are read through once.
        With three axes or more, uint8 and uint16 are pixels and become [0, 1] (divided by 255 or 65,535). Or several
        leaves, ``{leaf: [N, ...]}``, which a model gets as a dict; columns, pixels, missing_inputs and vocabulary are
        then dicts too, of the leaves that they are for.
      tasks: what can be predicted; names differ.
      labels: ``{task: [N]}``, and ``[N, *shape]`` of a dense task; one entry for every task and none beside.
      about: what the data are, their source and licence.
      groups: [N] integers, equal for rows that no split may part; part of the sha256, as it moves the splits.
      classes: ``{task: names}``, one name for each class id, in order; no part of the sha256.
      columns: names of the inputs [N, F], in order; they differ.
      pixels: whether inputs are pixels, which keep their scale unless asked; by default those of four axes or more are,
        and [N, a, b] in [0, 1]. Of other inputs, those that are all 0 or 1 are indicators (bits of fingerprints,
        one-hot columns) and keep theirs too.
      missing_inputs: ``error``, or ``flag``: NaN among inputs [N, F] is a missing one, to be filled in with the mean of
        what is there, and each input that has any gets one more, 1 where it is missing.
      reading: see ``Table``.
      vocabulary: how many ids there are, if x holds ids (of words, of categories), which are whole numbers from 0 to
        one less. They stay integers, and nothing scales, fills in, rounds or augments them.
      part: [N] integers, 0 for rows of the data's training part, 1 validation, 2 test; part of the sha256.

    Returns:
      The table; its arrays are read-only copies.

    Raises:
      ValueError: one sentence with the field, the value, the first row at fault and what would be right, for
        inputs that are empty, not finite or of rank below 2; ids that do not exist; leaves of different lengths;
        tasks that repeat; labels that no task owns or a task without labels; labels of the wrong length, kind or
        range; groups and parts that are not N integers; and class names of another number than the task's classes.

    >>> make_table("toy", np.eye(2), [Task("even", "binary")], {"even": [0, 2]})
    Traceback (most recent call last):
    ...
    ValueError: data "toy", task "even": label 2 in row 1: must be 0, 1 or NaN (missing)
    """
    entered = _entered(name, x, columns, pixels, missing_inputs, vocabulary)
    inputs = each(lambda leaf: leaf.x, entered)
    if divided_by := _part(entered, "divided_by"):
        reading = {**(reading or {}), "divided_by": divided_by}
    vocabulary = _part(entered, "vocabulary")
    names = [task.name for task in tasks]
    if not names:
        raise ValueError(f'data "{name}" has no tasks: give at least one')
    for task_name in names:
        if names.count(task_name) > 1:
            raise ValueError(f'data "{name}": task "{task_name}" is there twice or more: names must differ')
        if task_name not in labels:
            raise ValueError(f'data "{name}": task "{task_name}" has no labels: give labels["{task_name}"]')
    for key in labels:
        if key not in names:
            raise ValueError(f'data "{name}": labels of "{key}", which is no task: {suggest(key, names)}')
    values: dict[str, np.ndarray] = {}
    mask: dict[str, np.ndarray] = {}
    positions: dict[str, np.ndarray] = {}
    for task in tasks:
        values[task.name], present = _labels(name, task, labels[task.name], count(inputs))
        mask[task.name] = np.asarray(present.reshape(count(inputs), -1).any(axis=1))
        if task.shape:
            positions[task.name] = present
    named = _classes(name, tasks, classes or {})
    together = {} if groups is None else {"groups": _integers(name, "groups", groups, count(inputs)).astype(np.int64)}
    if part is not None and (parts := _integers(name, "part", part, count(inputs))).any():
        if not set(np.unique(parts).tolist()) <= set(range(len(PARTS))):
            raise ValueError(f'data "{name}", part: {parts.min()} to {parts.max()}: must be 0 to {len(PARTS) - 1}')
        together["part"] = parts.astype(np.int8)
    held = [a for leaf in leaves(entered) for a in (leaf.x, leaf.measured, leaf.gaps) if isinstance(a, np.ndarray)]
    for array in (*held, *values.values(), *mask.values(), *positions.values(), *together.values()):
        array.setflags(write=False)
    digest = sha256_of(
        {"data": name, "kinds": sorted((t.name, t.kind, t.num_classes) for t in tasks)}
        | ({"vocabulary": vocabulary} if vocabulary else {}),
        ({f"x/{k}": v for k, v in inputs.items()} if isinstance(inputs, dict) else {"x": inputs})
        | together
        | {f"labels/{k}": v for k, v in values.items()}
        | {f"mask/{k}": v for k, v in mask.items()}
        | {f"positions/{k}": v for k, v in positions.items()},
    )
    found = (name, inputs, tuple(tasks), values, mask, digest, about, together.get("groups"), named)
    measured, gaps, titles = (_part(entered, part) for part in ("measured", "gaps", "columns"))
    facts = dict(reading or {})
    parts_of = together.get("part")
    return Table(*found, measured, gaps, titles or (), vocabulary, facts, positions=positions, part=parts_of)


def _entered(name: str, x: Any, columns: Any, pixels: Any, missing_inputs: Any, vocabulary: Any) -> Any:
    """Return inputs as a ``Leaf``, or ``{leaf: Leaf}`` in the order of their names."""
    data = f'data "{name}"'
    options = {"columns": columns, "pixels": pixels, "missing_inputs": missing_inputs, "vocabulary": vocabulary}
    if not isinstance(x, Mapping):
        if wrong := [option for option, given in options.items() if isinstance(given, Mapping)]:
            raise ValueError(f"{data}, {wrong[0]}: a dict: must be one value, as x is one array")
        return make_leaf(data, "", x, columns, pixels, missing_inputs, vocabulary)
    defaults = {"columns": (), "pixels": None, "missing_inputs": "error", "vocabulary": None}
    if not x or not all(isinstance(leaf, str) and leaf for leaf in x):
        raise ValueError(f"{data}, x: leaves {list(x)}: must be one or more, named by texts")
    for option, given in options.items():
        if not isinstance(given, Mapping) and given != defaults[option]:
            raise ValueError(f"{data}, {option} = {given!r}: must be a dict of leaves, as x is")
        if unknown := set(given if isinstance(given, Mapping) else ()) - set(x):
            raise ValueError(f'{data}, {option}: x has no leaf "{min(unknown)}": {suggest(min(unknown), list(x))}')
    found = {}
    for leaf in sorted(x):
        if isinstance(x[leaf], Streamed):
            raise ValueError(f'{data}, x["{leaf}"]: is streamed: only inputs that are one array can be')
        own = {k: given.get(leaf, defaults[k]) if isinstance(given, Mapping) else given for k, given in options.items()}
        found[leaf] = make_leaf(data, f'["{leaf}"]', x[leaf], **own)
        first = min(found)
        if count(found[leaf].x) != count(found[first].x):
            raise ValueError(
                f'{data}, x["{leaf}"]: {count(found[leaf].x):,} rows, and x["{first}"] has {count(found[first].x):,}: '
                "must be as many"
            )
    return found


def _part(entered: Any, part: str) -> Any:
    """Return a part of each leaf that has it; None if none does."""
    if isinstance(entered, Leaf):
        return getattr(entered, part)
    found = {leaf: getattr(entered[leaf], part) for leaf in entered}
    return {leaf: value for leaf, value in found.items() if isinstance(value, np.ndarray) or value} or None


def sha256_of(header: Mapping[str, Any], arrays: Mapping[str, Inputs]) -> str:
    """Return the SHA-256 of a header and of named arrays (names, dtypes, shapes, little-endian bytes).

    Args:
      header: plain values; the order of keys does not matter.
      arrays: ``{name: array}``; their order does not matter, nor whether they are streamed. Streamed ones are told
        which of their rows are copies, and their range.

    >>> one, two = np.zeros(2), np.zeros(3)
    >>> sha256_of({}, {"a": one, "b": two}) == sha256_of({}, {"b": two, "a": one})
    True
    """
    digest = hashlib.sha256(repr(sorted(header.items())).encode())
    for key in sorted(arrays):
        given = arrays[key]
        if isinstance(given, Streamed):
            kind = given.dtype.newbyteorder("<")
            digest.update(repr((key, kind.str, given.shape)).encode())
            rows = FirstRows(len(given))  # In the same pass: reading is what takes time.
            for block in blocks(given):
                digest.update(np.ascontiguousarray(block, kind).reshape(-1).view(np.uint8).data)
                rows.see(block)
                low, high = given.range
                given.range = min(low, float(block.min())), max(high, float(block.max()))
            given.first_rows = rows.found
            continue
        array = np.ascontiguousarray(given)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(repr((key, array.dtype.str, array.shape)).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)  # a view: large tables are not copied to be hashed
    return digest.hexdigest()


def _labels(name: str, task: Task, given: npt.ArrayLike, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (labels with 0 where missing, mask) of one task."""
    where = f'data "{name}", task "{task.name}"'
    raw = numbers(f"{where}: labels", given)
    if raw.shape != (length, *task.shape):
        each = "one label at each position of a row of x" if task.shape else "one label a row of x"
        raise ValueError(f"{where}: labels of shape {raw.shape}: must be {(length, *task.shape)}, {each}")
    present = ~np.isnan(raw) if raw.dtype.kind == "f" else np.ones(raw.shape, dtype=bool)
    if task.labels == "ids":
        number = raw.astype(np.float64)  # floor is not there for booleans
        fractional = present & (number != np.floor(number))
        _refuse(where, raw, fractional, "class ids must be integers, -1 or NaN (missing)")
        allowed = f"class ids must be 0 to {task.num_classes - 1}, -1 or NaN (missing)"
        _refuse(where, raw, present & ((raw < -1) | (raw >= task.num_classes)), allowed)
        present &= raw != -1
    elif task.labels == "binary":
        _refuse(where, raw, present & (raw != 0) & (raw != 1), "must be 0, 1 or NaN (missing)")
    with np.errstate(over="ignore"):
        labels = np.where(present, raw, 0).astype(task.label_dtype)
    if task.labels == "numbers":
        _refuse(
            where, raw, ~(np.abs(labels) <= np.finfo(np.float32).max), "must be finite in float32, or NaN (missing)"
        )
        least = KINDS[task.kind].least
        _refuse(where, raw, present & (labels < least), f"must be at least {least:g}, or NaN (missing)")
    if not present.any():
        raise ValueError(f"{where}: none of its {length} labels is present: must have at least one")
    return labels, present


def _integers(name: str, field: str, values: npt.ArrayLike, length: int) -> np.ndarray:
    given = np.asarray(values)
    if given.dtype.kind not in "biu" or given.shape != (length,):
        right = f"must be integers ({length},), one a row"
        raise ValueError(f'data "{name}", {field}: {given.dtype} {given.shape}: {right}')
    return given


def _classes(name: str, tasks: Sequence[Task], classes: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    count = {task.name: task.classes for task in tasks}
    for key, names in classes.items():
        if key not in count:
            raise ValueError(f'data "{name}": classes of "{key}", which is no task: {suggest(key, count)}')
        if len(names) != count[key] or len(set(names)) != len(names):
            raise ValueError(
                f'data "{name}", task "{key}": class names {tuple(names)}: must be {count[key]} different names'
            )
    return {key: tuple(names) for key, names in classes.items()}


def _refuse(where: str, raw: np.ndarray, bad: np.ndarray, right: str) -> None:
    """Raise for the first row at which ``bad`` is true, saying what would be right."""
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        position = f", position {at[1:]}" if at[1:] else ""
        raise ValueError(f"{where}: label {raw[at]} in row {at[0]}{position}: {right}")
