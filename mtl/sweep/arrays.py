"""A trial's arrays as a file: uncompressed NPZ whose bytes depend on nothing but the arrays."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtl.data.npz import read_npz
from mtl.data.problems import DataError
from mtl.files import DamagedError

#: What a trial has, and what it has if its table has groups; nothing else is read.
NAMES, GROUPS = ("outputs", "rows", "labels"), "groups"

#: The largest file that is read.
MAX_BYTES = 4 * 2**30


def dump(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return an NPZ file. NumPy's own holds the time of day: two runs of one trial would differ in it.

    >>> load(dump({"rows": np.arange(3)}), "here")
    {'rows': array([0, 1, 2])}
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def load(content: bytes, where: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of an NPZ file.

    Uncompressed, they cannot be larger than their file; one that would unpack to more is refused before memory is
    taken for it.

    Args:
      content: the file.
      where: what to call it in errors.

    Raises:
      DamagedError: if it is damaged, holds objects (which would need pickle), or unpacks to more than it holds.
    """
    try:
        return read_npz(content, str(where), [*NAMES, GROUPS], len(content))
    except DataError as error:
        raise DamagedError(f"{where} cannot be read: {error}") from None


def checked(found: dict[str, np.ndarray], where: str | Path) -> dict[str, np.ndarray]:
    """Return a trial's arrays if they fit together: a row of numbers, a label and a place in the table an example.

    And the number of its group, where there are groups.

    Raises:
      DamagedError: if they do not.
    """
    shapes = {name: array.shape for name, array in found.items()}
    good = set(shapes) - {GROUPS} == set(NAMES) and all(a.dtype.kind in "fiu" for a in found.values())
    good = good and len(shapes["outputs"]) == 2 and shapes["outputs"][1] > 0
    good = good and (GROUPS not in found or found[GROUPS].dtype.kind in "iu")
    if not good or any(shape != shapes["outputs"][:1] for name, shape in shapes.items() if name != "outputs"):
        raise DamagedError(f"{where} holds no outputs [n, k], rows [n] and labels [n] (and groups [n]), but {shapes}")
    return found
