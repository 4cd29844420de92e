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

#: What a trial may have, and all that is read.
NAMES = ("outputs", "rows", "labels")

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
        return read_npz(content, str(where), list(NAMES), len(content))
    except DataError as error:
        raise DamagedError(f"{where} cannot be read: {error}") from None
