"""Files that are there whole or not at all, that say when they are damaged, and that are read within bounds."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import io
import itertools
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

#: A JSON file may have so many bytes, so many values, and be nested so deep: what a parser takes is bounded by these.
MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_VALUES = 4_000_000
MAX_JSON_DEPTH = 64

#: The key of a JSON object's own digest.
DIGEST = "sha256"

# Of macOS, NFS, FUSE, KDE, Windows and ext4.
_OF_SYSTEMS = (
    *(".DS_Store", "._*", ".nfs*", ".fuse_hidden*", ".directory", ".Trash*", "lost+found"),
    *("Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information"),
)
_SYNCS_AT_ONCE = 16
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_number = itertools.count()


class FileError(ValueError):
    """A file that cannot be read or written: one sentence that names it."""


class DamagedError(FileError):
    """A file whose bytes are not those that were written."""


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file so that it is there whole or not at all; see ``write_all``."""
    write_all([(path, content)], durable)


def write_all(contents: Sequence[tuple[Path, bytes]], durable: bool = True) -> None:
    """Write files so that each is there whole or not at all: to names of their own, then renamed in the order given.

    Args:
      contents: (path, bytes) of each.
      durable: whether they must be on the disk, not only in the system's memory, when this returns. A disk takes
        about as long for one file as for a dozen at once, so files that are written together wait together.

    Raises:
      FileError: if one cannot be written; those before it may have been, and no half of any is left.
    """
    temporary: dict[Path, Path] = {}
    path = contents[0][0] if contents else Path()
    try:
        for path, content in contents:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path] = path.with_name(f".{path.name}.{os.getpid()}.{next(_number)}.tmp")
            _write_new(temporary[path], content)
        if durable:
            _sync(list(temporary.values()))
        for path in list(temporary):
            os.replace(temporary[path], path)
            del temporary[path]
        if durable:
            _sync(list(dict.fromkeys(path.parent for path, _ in contents)))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        then = "; what was written before is kept: make room and run again" if full else ""
        raise FileError(f"{path} cannot be written: {error.strerror or error}{then}") from None
    finally:
        for left in temporary.values():
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)


def is_of_a_system(name: str) -> bool:
    """Return whether a file or directory of that name is one that systems leave in any directory.

    >>> is_of_a_system(".DS_Store"), is_of_a_system(".zarray")
    (True, False)
    """
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _OF_SYSTEMS)


def is_half(name: str) -> bool:
    """Return whether a file of that name is one that ``write_all`` had not written to the end.

    >>> is_half(".study.json.4711.0.tmp"), is_half(".notes.tmp")
    (True, False)
    """
    return re.fullmatch(r"\..+\.[0-9]+\.[0-9]+\.tmp", name, re.DOTALL) is not None


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there; nothing that lies under its name, such as a link, is written through."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)
    with open(descriptor, "wb") as file:
        file.write(content)


def _sync(paths: Sequence[Path]) -> None:
    """Wait until files or directories are on the disk."""

    def one(path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    if len(paths) == 1:
        one(paths[0])
        return
    with ThreadPoolExecutor(_SYNCS_AT_ONCE) as threads:
        list(threads.map(one, paths))


def open_plain(path: Path) -> io.BufferedReader:
    """Open a regular file to read; a pipe in its place would be waited for, and a device need have no end.

    Raises:
      OSError: if it is something else, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it must be a file, and is a pipe or a device", str(path))


def read(path: Path, most: int) -> bytes:
    """Return a file's bytes.

    Raises:
      FileError: if it is no regular file, larger than ``most`` bytes, or cannot be read.
    """
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise FileError(f"{path} is {size:,} bytes long: at most {most:,} are read")
            return file.read(size)  # Not `most`: as much memory would be taken at once.
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from None


def parse(data: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
      DamagedError: if it is none, or goes beyond the bounds; the file is not named.
    """
    if len(data) > MAX_JSON_BYTES or data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_JSON_VALUES:
        raise DamagedError(f"has more than {MAX_JSON_BYTES:,} bytes or {MAX_JSON_VALUES:,} values")
    try:
        found = json.loads(data.decode(), parse_int=_int)  # Bytes might be UTF-16, in which nothing above is found.
        if b"\\ud" in data.lower():  # Half a character cannot be written anywhere.
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise DamagedError(f"holds a {type(found).__name__}, not an object")
    # What is left without strings is the brackets, each pair within another.
    brackets = _STRING.sub(b"", data).translate(None, _NO_BRACKETS)
    for _ in range(MAX_JSON_DEPTH):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not brackets:
            return found
    raise DamagedError(f"is nested deeper than {MAX_JSON_DEPTH}")


def _int(text: str) -> int:
    """Return a whole number that is also one for NumPy; any other takes no part in a file of ours."""
    number = int(text)
    if abs(number) >= 2**63:
        raise ValueError(f"the number {text[:20]}… has more than 63 bits")
    return number


def seal(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Return a JSON object with its own sha256 in it.

    The digest is that of its canonical JSON (sorted keys, no spaces) without the digest, so the file may be laid out
    for people.

    >>> unseal(seal({"b": 1, "a": None}))
    {'a': None, 'b': 1}
    """
    whole = {**content, DIGEST: digest_of(content)}
    separators = (",", ":") if indent is None else None
    text = json.dumps(whole, sort_keys=True, separators=separators, indent=indent, allow_nan=False)
    return (text + "\n").encode()


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the sha256 of a JSON object's canonical form, its own digest left out."""
    bare = {k: v for k, v in content.items() if k != DIGEST}
    return hashlib.sha256(json.dumps(bare, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def unseal(data: bytes) -> dict[str, Any]:
    """Return a JSON object without its digest, which must be right.

    Raises:
      DamagedError: if the digest is missing or wrong, or the bytes are no JSON object; the file is not named.
    """
    found = parse(data)
    if DIGEST not in found:
        raise DamagedError("has no sha256 of itself")
    try:
        right = found.pop(DIGEST) == digest_of(found)
    except ValueError:  # A number that is not finite, which JSON's writer refuses.
        right = False
    if not right:
        raise DamagedError("is damaged: its sha256 is not the one it was written with")
    return found


def about_bytes(content: bytes) -> dict[str, Any]:
    """Return what another file says of one, so that damage to it is seen: its size and sha256."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a file, without holding it in memory."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
