"""NPZ files: arrays by name, with every size checked before memory is taken, and no pickle."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from mtl.data.paths import MAX_BYTES, read, resolve
from mtl.data.problems import DataError, Problems, located
from mtl.data.readers.columns import chosen_by
from mtl.data.readers.frames import arrays_table
from mtl.data.readers.maps import is_map
from mtl.data.readers.options import ReadOptions, reader
from mtl.data.table import Table

# The header that numpy writes, and nothing else: no expression is evaluated.
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?)([biufSU])(\d{1,6})', 'fortran_order': (True|False), 'shape': \(([\d, ]{0,200})\),? *\}\s*"
)
_LENGTH = {1: 2, 2: 4, 3: 4}
#: The most members of a file: a directory of very many empty ones takes ten times its own size in memory.
_MAX_MEMBERS = 10_000
_MEMBER = b"PK\x01\x02"
#: What the names of arrays end with where each stands in parts.
_ENDS = ("_train", "_val", "_test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NpzOptions(ReadOptions):
    """Options of ``npz_table``.

    Args:
      labels: names of label arrays, ``name`` or ``name:kind``, or ``{name: kind}``: [N], [N, K] for K tasks, or [N,
        height, width] for a dense task.
      inputs: name of the array of inputs, [N, ...]; pixels become [0, 1] as in ``make_table``. Arrays ``x/image`` and
        ``x/words``, where there is no ``x``, are leaves of it: the model gets ``{"image": …, "words": …}``. Arrays
        ``x_train`` and ``x_test``, or ``x_val`` besides, are joined, those of labels too, and each is a part (as by
        ``part``).
      vocabulary: how many ids there are, if inputs are ids, or a list of ``leaf:count``; as in ``make_table``.
      groups: name of an array [N], equal for rows that no split may part; empty for none.
      part: name of an array [N] of texts that say which rows are for training, validation and testing; empty for none.
      max_bytes: the most all arrays together may hold; checked from their headers before any is read.
    """

    inputs: str = "x"
    vocabulary: int | Sequence[str] | str = 0


@reader(NpzOptions, without=("ignore", "missing_inputs"))
def npz_table(path: str, options: NpzOptions) -> Table:
    """Return the table of an NPZ file, as ``numpy.savez`` and ``savez_compressed`` write it.

    Args:
      path: of the file, inside the data directory.
      options: see ``NpzOptions``; given by name.

    Raises:
      DataError: for a damaged file, an array of objects (they would need pickle), one too large, and labels
        that cannot be.
    """
    full, inputs = resolve(path, options.directory), options.inputs
    where = f'file "{full.name}"'
    with located(where):
        data = read(full, options.sha256, options.max_bytes)
        names = array_names(data, where)
        ends = [] if inputs in names else [end for end in _ENDS if f"{inputs}{end}" in names]
        if ends:
            names = [name.removesuffix(ends[0]) for name in names if name.endswith(ends[0])]
        prefix = "" if inputs in names else f"{inputs}/"
        parts = [name for name in names if prefix and name.startswith(prefix)]
        if parts:  # They stand in one place.
            names = [name for name in names if name not in parts] + [inputs]
        roles = chosen_by(options, names)
        if roles.inputs != (inputs,):
            raise DataError(f'inputs: "{inputs}" is no array: must be the name of one')
        chosen, vocabulary = roles.labels, _vocabulary(options.vocabulary)
        wanted = [f"{name}{end}" for name in (*roles.all, *parts) for end in ends or [""]]
        arrays = read_npz(data, where, wanted, options.max_bytes)
        part = arrays.get(roles.part)
        if ends:
            arrays, part = _joined(arrays, roles.all, ends)
    kinds: dict[str, str] = {}
    for key, kind in chosen.items():
        width = arrays[key].shape[1] if arrays[key].ndim == 2 and not is_map(arrays[key], kind) else 0
        kinds |= {f"{key}_{j}": kind for j in range(width)} if width else {key: kind}
    return arrays_table(
        {part.removeprefix(prefix): arrays[part] for part in parts} or arrays[inputs],
        {key: arrays[key] for key in chosen},
        kinds,
        arrays[roles.groups] if roles.groups else None,
        options.missing,
        options.classes,
        options.name or full.name.removesuffix(".npz"),
        where,
        options.about,
        vocabulary,
        part,
    )


def _joined(
    arrays: dict[str, np.ndarray], names: Sequence[str], ends: Sequence[str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return arrays that stand in parts as one each, and of which part each row is."""
    first = [arrays[f"{names[0]}{end}"] for end in ends]
    found = {}
    for name in names:
        if absent := [end for end in ends if f"{name}{end}" not in arrays]:
            raise DataError(f'"{name}{absent[0]}" is no array: must be one, as "{names[0]}{absent[0]}" is')
        parts = [arrays[f"{name}{end}"] for end in ends]
        for end, part, inputs in zip(ends, parts, first, strict=True):
            right = (*inputs.shape[:1], *parts[0].shape[1:])
            if not part.ndim or part.shape != right or part.dtype.kind != parts[0].dtype.kind:
                must = f"must be {parts[0].dtype} {right}, as {names[0]}{end} and {name}{ends[0]} are"
                raise DataError(f'"{name}{end}": {part.dtype} {part.shape}: {must}')
        found[name] = np.concatenate(parts)
    return found, np.repeat([end.strip("_") for end in ends], [len(part) for part in first])


def _vocabulary(given: int | Sequence[str] | str) -> int | dict[str, int] | None:
    """Return how many ids there are, of each leaf that a list names."""
    if isinstance(given, int):
        return given or None
    found = {}
    for entry in [given] if isinstance(given, str) else given:
        leaf, _, count = entry.rpartition(":")
        if not leaf or not count.isdecimal():
            raise DataError(f'vocabulary: "{entry}": must be a number, or leaf:number for each leaf that holds ids')
        found[leaf] = int(count)
    return found


def _open(data: bytes, where: str) -> zipfile.ZipFile:
    if data.count(_MEMBER) > _MAX_MEMBERS:
        raise DataError(f"{where}: more than {_MAX_MEMBERS:,} arrays: must be an NPZ file of some arrays")
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise DataError(f"{where}: damaged or truncated zip ({error})") from None


def array_names(data: bytes, where: str) -> list[str]:
    """Return the names of the arrays of an NPZ file.

    Raises:
      DataError: for what is no zip file.
    """
    with _open(data, where) as archive:
        return [info.filename.removesuffix(".npy") for info in archive.infolist()]


def read_npz(data: bytes, where: str, wanted: list[str], max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Return the arrays of an NPZ file whose names match.

    Args:
      data: of the file.
      where: what to call it in errors.
      wanted: names of the arrays to read; those that are not there are left out.
      max_bytes: the most they may hold together.

    Raises:
      DataError: for everything that is wrong with the file.

    >>> buffer = io.BytesIO()
    >>> np.savez(buffer, x=np.eye(2), y=np.arange(2))
    >>> {name: a.shape for name, a in read_npz(buffer.getvalue(), "here", ["x"]).items()}
    {'x': (2, 2)}
    """
    problems, arrays, seen, total = Problems(), {}, set[str](), 0
    with _open(data, where) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name not in wanted:
                continue
            if name in seen:
                problems.add(f'{where}: array "{name}": is there twice: must be there once')
                continue
            seen.add(name)
            try:
                with archive.open(info) as member:
                    dtype, shape, fortran = _header(member)
                    size = dtype.itemsize * math.prod(shape)
                    total += size
                    if total > max_bytes:
                        raise ValueError(f"shape {shape}: all arrays together must be at most {max_bytes:,} bytes")
                    body = member.read(size)
                    if len(body) != size or member.read(1):
                        raise ValueError(f"its bytes are not those of shape {shape}")
                    flat = np.frombuffer(body, dtype=dtype)
                    arrays[name] = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
            except (
                *(zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, RuntimeError),
                *(zlib.error, KeyError, UnicodeDecodeError, OverflowError, TypeError),
            ) as error:
                problems.add(f'{where}: array "{name}": {error}')
    problems.stop()
    return arrays


def _header(member: object) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Return (dtype, shape, Fortran order) of a .npy stream, which is left at its data."""
    magic = member.read(8)  # type: ignore[attr-defined]
    if len(magic) < 8 or magic[:6] != b"\x93NUMPY" or magic[6] not in _LENGTH:
        raise ValueError("is no array of numpy's format")
    width = _LENGTH[magic[6]]
    length = int.from_bytes(member.read(width), "little")  # type: ignore[attr-defined]
    text = member.read(min(length, 10_000))  # type: ignore[attr-defined]
    found = _HEADER.fullmatch(text) if len(text) == length else None
    if found is None:
        kind = b"objects, which would need pickle" if b"'|O'" in text else text[:60]
        raise ValueError(f"holds {kind.decode('latin-1')}: must hold numbers or texts")
    order, kind, bits, fortran, shape = found.groups()
    dtype = np.dtype((order + kind + bits).decode())
    return dtype, tuple(int(n) for n in shape.replace(b" ", b"").split(b",") if n), fortran == b"True"
