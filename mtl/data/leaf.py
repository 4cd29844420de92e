"""One array of inputs where it enters a table: numbers, pixels or ids, each checked by its own rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl.data.picture import holds_pixels, unit
from mtl.data.streamed import Streamed, blocks

#: Ids are int32: the most that there can be.
MOST_IDS = 2**31


@dataclasses.dataclass(frozen=True, eq=False)
class Leaf:
    """One array of inputs, checked; see ``Table`` for what its parts mean.

    Attributes:
      x: float32, or float64 where float32 would move a value; int32 where it holds ids.
      measured, gaps: booleans of the shape of one row's, or None.
      columns: what the inputs are called, in order.
      vocabulary: how many ids there are, or None.
      divided_by: what pixels were divided by, or None.
    """

    x: np.ndarray | Streamed
    measured: np.ndarray | None = None
    gaps: np.ndarray | None = None
    columns: tuple[str, ...] = ()
    vocabulary: int | None = None
    divided_by: int | None = None


def make_leaf(
    data: str,
    at: str,
    x: npt.ArrayLike | Streamed,
    columns: Sequence[str],
    pixels: bool | None,
    missing_inputs: str,
    vocabulary: int | None,
) -> Leaf:
    """Return one array of inputs, checked.

    Args:
      data: what the data are called in sentences.
      at: what follows a field's name there: ``["words"]`` of that leaf, nothing where there is but one.
      x, columns, pixels, missing_inputs, vocabulary: as in ``make_table``.

    Raises:
      ValueError: as ``make_table``.
    """
    if missing_inputs not in ("error", "flag"):
        raise ValueError(f'{data}, missing_inputs{at} = "{missing_inputs}": must be "error" or "flag"')
    where = f"{data}, x{at}"
    if isinstance(x, Streamed):
        if vocabulary is not None:
            raise ValueError(f"{where}: streamed inputs say themselves how many ids they have: give it to Streamed")
        held = x.vocabulary == 0 and not (x.ndim > 2 if pixels is None else pixels)
        measured = np.ones(x.shape[1:], bool) if held else None
        return Leaf(x, measured, None, _columns(data, at, columns, x), x.vocabulary or None)
    given = numbers(where, x)
    if vocabulary is not None:
        _check_size(where, given)
        ids = check_ids(where, given, vocabulary, f"{data}, vocabulary{at}")
        return Leaf(ids, columns=_columns(data, at, columns, ids), vocabulary=int(vocabulary))
    inputs = _floats(where, given, missing_inputs == "flag")
    divided_by = int(np.iinfo(given.dtype).max) if holds_pixels(given) else None
    titles = _columns(data, at, columns, inputs)
    gaps = None if missing_inputs == "error" else np.isnan(inputs).any(axis=0)
    if gaps is not None and gaps.any():
        flags = np.isnan(inputs[:, gaps]).astype(inputs.dtype)
        inputs = np.concatenate([inputs, flags], axis=1)
        titles += tuple(f"{c} is missing" for c, gap in zip(titles, gaps, strict=bool(titles)) if gap)
        titles = _columns(data, at, titles, inputs)
        gaps = np.append(gaps, np.zeros(flags.shape[1], bool))
    else:
        gaps = None
    measured = None if (_pixels(inputs) if pixels is None else pixels) else _measured(inputs)
    return Leaf(inputs, measured, gaps, titles, None, divided_by)


def numbers(where: str, values: npt.ArrayLike) -> np.ndarray:
    """Return ``values`` as an array of real numbers, or say what they are."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{where}: rows of different lengths: must be one array of numbers") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{where}: dtype {array.dtype}: must be real numbers or booleans")
    return array


def check_ids(where: str, given: np.ndarray, vocabulary: Any, field: str) -> np.ndarray:
    """Return ids as int32, if each is one of the vocabulary.

    Args:
      where: what they are called in sentences.
      given: [N, ...].
      vocabulary: how many ids there are.
      field: what that is called.

    Raises:
      ValueError: for what is no whole number, and for an id that does not exist.

    >>> check_ids("x", np.array([[0, 5]]), 5, "vocabulary")
    Traceback (most recent call last):
    ...
    ValueError: x: id 5 in row 0: must be from 0 to 4, as vocabulary = 5 says
    """
    if isinstance(vocabulary, bool) or not isinstance(vocabulary, int | np.integer) or not 0 < vocabulary <= MOST_IDS:
        raise ValueError(f"{field} = {vocabulary!r}: must be a whole number from 1 to {MOST_IDS:,}")
    if given.dtype.kind not in "iu":
        raise ValueError(f"{where}: dtype {given.dtype}: must be whole numbers, as they are ids ({field} is given)")
    if given.size and not 0 <= int(given.min()) <= int(given.max()) < vocabulary:
        at = tuple(int(i) for i in np.argwhere((given < 0) | (given >= vocabulary))[0])
        most = int(vocabulary) - 1
        raise ValueError(
            f"{where}: id {given[at]} in row {at[0]}: must be from 0 to {most:,}, as vocabulary = {vocabulary:,} says"
        )
    return given.astype(np.int32)


def _check_size(where: str, given: np.ndarray) -> None:
    if given.ndim < 2 or given.size == 0:
        raise ValueError(f"{where}: shape {given.shape}: must be [N, ...] with at least one row and one feature")


def _floats(where: str, given: np.ndarray, missing: bool) -> np.ndarray:
    """Return inputs in float32; in float64 where that moves a value, so that scaling comes first."""
    if missing and given.ndim != 2:
        raise ValueError(f"{where}: shape {given.shape}: missing inputs must be in a table [N, F]")
    _check_size(where, given)
    if holds_pixels(given):
        if given.max() == 1:  # One-hot codes, masks: divided, they would all but vanish.
            raise ValueError(
                f"{where}: {given.dtype} {given.shape} of 0 and 1 alone, which as pixels would be divided: "
                "must be booleans or floats, which are taken as they are"
            )
        given = unit(given)
    elif given.ndim > 3 and given.dtype.kind in "iu" and given.max() > 1:
        raise ValueError(
            f"{where}: {given.dtype} {given.shape} up to {given.max():,}, and nothing says which is white: "
            "must be uint8 or uint16, which become [0, 1], or floats, which are taken as they are"
        )
    # What its maker has closed for good is taken as it is: a copy of a large set takes seconds.
    ours = given.dtype == np.float32 and given.flags.owndata and given.flags.c_contiguous and not given.flags.writeable
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused below
        inputs = given if ours else given.astype(np.float32)
    step = max(
        1, 2**16 // max(1, inputs[0].size)
    )  # Block by block, in the cache: a mask of it all takes as long again.
    for first in range(0, len(inputs), step):
        bad = ~np.isfinite(inputs[first : first + step])
        if missing:
            bad &= ~np.isnan(given[first : first + step].astype(np.float64))
        if bad.any():
            at = (first + int(np.argwhere(bad)[0][0]), *(int(i) for i in np.argwhere(bad)[0][1:]))
            raise ValueError(f"{where}: {given[at]} in row {at[0]}: inputs must be finite in float32")
    wide = given.ndim < 4 or abs(given).max() > 2  # Pixels in [0, 1] need no more than float32.
    if wide and not ours and given.dtype.itemsize > 2 and not np.array_equal(inputs, given, equal_nan=True):
        return given.astype(np.float64)
    return inputs


def _columns(data: str, at: str, columns: Sequence[str], inputs: np.ndarray | Streamed) -> tuple[str, ...]:
    if columns and (inputs.ndim != 2 or len(columns) != inputs.shape[1] or len(set(columns)) != len(columns)):
        raise ValueError(
            f"{data}, columns{at}: {len(columns)} names for inputs {tuple(inputs.shape[1:])}: must be a name of its "
            "own for each input of [N, F]"
        )
    return tuple(columns)


def _pixels(inputs: np.ndarray) -> bool:
    """Return whether inputs count as pixels: [N, height, width, channels], or [N, a, b] in [0, 1]."""
    if inputs.ndim == 3:
        return bool(inputs.min() >= 0 and inputs.max() <= 1)
    return inputs.ndim > 2


def _measured(inputs: np.ndarray) -> np.ndarray:
    """Return which inputs hold anything but 0, 1 and missing."""
    measured = np.zeros(inputs.shape[1:], bool)
    for block in blocks(inputs):
        measured |= ((block != 0) & (block != 1) & ~np.isnan(block)).any(axis=0)
    return measured
