"""Files from outside: where they may lie, how large they may be, whether they are the ones that were meant."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import os
import pathlib
import zlib
from collections.abc import Hashable, Mapping

from mtl.data.problems import DataError
from mtl.host.files import open_plain

#: The folder that relative paths start from, if this environment variable is set.
DATA_DIR = "MTL_DATA_DIR"

#: The most bytes a file may hold, decompressed, unless an option says otherwise.
MAX_BYTES = 2**31


def resolve(path: str, directory: str = "") -> pathlib.Path:
    """Return where a file or folder lies, and refuse what leaves the data directory.

    The data directory is ``directory``; if that is empty, the folder that the environment variable
    ``MTL_DATA_DIR`` names, else the present one. An absolute path may lie anywhere unless ``directory`` is
    given. Symbolic links are followed before the check.

    Args:
      path: of the file, relative to the data directory, or absolute.
      directory: the data directory.

    Raises:
      DataError: for an empty path, one outside the data directory, or one that does not exist.

    >>> resolve("../secret.csv", ".")
    Traceback (most recent call last):
    ...
    mtl.data.problems.DataError: file "../secret.csv": leaves the data directory ".": give directory=, or its whole path
    """
    if not path or "\0" in path:
        raise DataError(f'file "{path!r}": must be the path of a file')
    start = pathlib.Path(directory or os.environ.get(DATA_DIR, ".")).expanduser()
    given = pathlib.Path(path).expanduser()
    try:
        full = (start / given).resolve()
        bounded = bool(directory) or not given.is_absolute()
        inside = not bounded or full.is_relative_to(start.resolve())
        exists = inside and full.exists()
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links
        raise DataError(f'file "{path}": cannot be looked up ({error})') from None
    if not inside:
        raise DataError(f'file "{path}": leaves the data directory "{start}": give directory=, or its whole path')
    if not exists:
        raise DataError(f'file "{path}": does not exist in "{start}"')
    return full


def stamp(options: Mapping[str, object]) -> tuple[Hashable, ...]:
    """Return what tells whether the files that some options name have changed: where they lie, size, time.

    Args:
      options: of a data set; ``path``, ``folder`` and ``xml`` name files, ``directory`` the data directory,
        ``builder`` a data set of TFDS, of which its ``dataset_info.json`` is looked at.

    >>> stamp({"rows": 3, "path": ""}) == stamp({"rows": 4, "path": ""})
    True
    """
    found: list[Hashable] = [os.environ.get(DATA_DIR, "")]
    for option in ("path", "folder", "xml", "builder"):
        value = options.get(option)
        if option == "builder" and isinstance(value, str):
            start = pathlib.Path(str(options.get("directory") or found[0] or "")).expanduser()
            infos = sorted((start / value.partition(":")[0]).glob("**/dataset_info.json")) if _plain(value) else []
            found += [(str(path), path.stat().st_mtime_ns) for path in infos]
            continue
        if value and isinstance(value, str):
            try:
                full = resolve(value, str(options.get("directory") or ""))
                status = full.stat()
            except (DataError, OSError):  # the data set itself will say so
                found.append(value)
            else:
                found += [str(full), status.st_mtime_ns, status.st_size]
    return tuple(found)


def _plain(name: str) -> bool:
    """Return whether a name leads nowhere but down."""
    return bool(name) and not name.startswith(("/", "~")) and ".." not in name


def read(path: pathlib.Path, sha256: str = "", max_bytes: int = MAX_BYTES) -> bytes:
    """Return a file's bytes, decompressed if it is a gzip file.

    Args:
      path: of the file.
      sha256: of the file as it lies there (compressed); empty to take any.
      max_bytes: the most it may hold, before and after decompression.

    Raises:
      DataError: for a file that cannot be read, is too large, is another than ``sha256`` says, or whose gzip
        stream is damaged or cut short.
    """
    where = f'file "{path.name}"'
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise DataError(f"{where}: {size:,} bytes: must be at most max_bytes = {max_bytes:,}")
            data = file.read(size)
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror or error})") from None
    if sha256 and hashlib.sha256(data).hexdigest() != sha256.lower():
        raise DataError(f"{where}: sha256 {hashlib.sha256(data).hexdigest()}: must be {sha256.lower()}")
    if data[:2] != b"\x1f\x8b" and path.suffix != ".gz":
        return data
    try:
        plain = bytearray()  # Grown by the file, not taken at once: `read` would make room for `max_bytes`.
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            while len(plain) <= max_bytes and (part := stream.read(min(2**20, max_bytes + 1 - len(plain)))):
                plain += part
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{where}: damaged or truncated gzip ({error})") from None
    if len(plain) > max_bytes:
        raise DataError(f"{where}: more than max_bytes = {max_bytes:,} bytes once decompressed")
    return bytes(plain)


def text_of(data: bytes, name: str) -> str:
    """Return bytes as text: UTF-8 with or without a mark, or UTF-16 with one.

    Raises:
      DataError: for what is neither, with the line.

    >>> text_of(b"a,b\\n1,\\xff\\n", "a.csv")
    Traceback (most recent call last):
    ...
    mtl.data.problems.DataError: file "a.csv", line 2: byte 0xff is not UTF-8: must be a text file in UTF-8
    """
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DataError(f'file "{name}": begins as UTF-16 and is damaged ({error.reason})') from None
    try:
        text = data.decode("utf-8-sig")
        if "\0" in text[:1000]:
            raise DataError(f'file "{name}": holds NUL characters: must be a text file in UTF-8, or UTF-16 with a mark')
        return text
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f'file "{name}", line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8: '
            "must be a text file in UTF-8"
        ) from None
