"""The idx format of MNIST: a magic number, a size for each axis, then the numbers."""

from __future__ import annotations

import math

import numpy as np

from mtl.data.paths import MAX_BYTES
from mtl.data.problems import DataError

#: What the third byte of an idx file says the numbers are.
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def parse_idx(data: bytes, where: str, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Return the array of an idx file.

    Bytes 0 and 1 are zero, byte 2 says the type (``DTYPES``), byte 3 the number of axes; then come the sizes
    of the axes and the numbers, all big-endian.

    Args:
      data: the file's bytes, decompressed.
      where: what to call it in errors.
      max_bytes: the most the array may hold.

    Raises:
      DataError: for what is no idx file, or is longer or shorter than its sizes say.

    Source: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits", file formats.

    >>> parse_idx(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 7, 9]), "here")
    array([[7, 9]], dtype=uint8)
    """
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in DTYPES:
        raise DataError(f"{where}: begins with {data[:4].hex() or 'nothing'}: must be an idx file (0000, type, axes)")
    dtype, axes = np.dtype(DTYPES[data[2]]), data[3]
    start = 4 + 4 * axes
    if len(data) < start:
        raise DataError(f"{where}: {len(data)} bytes: must have a size for each of its {axes} axes")
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    size = dtype.itemsize * math.prod(shape)
    if size > max_bytes:
        raise DataError(f"{where}: {shape} of {dtype.name}: must be at most max_bytes = {max_bytes:,}")
    if len(data) - start != size:
        raise DataError(f"{where}: {len(data) - start:,} bytes of data: must be {size:,} for {shape} of {dtype.name}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
