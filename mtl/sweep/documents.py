"""The JSON files of a work directory, and the names that files may have there."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mtl.host.escape import escape
from mtl.host.files import DIGEST, MAX_JSON_BYTES, DamagedError, is_of_a_system, parse, read, unseal
from mtl.sweep.schema import check

#: The format that is written and read; what has another is refused. 4: results in shards, of every task.
FORMAT = 6

#: A trial, a phase, a program, a sweep.
IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,100}")
_NAME = re.compile(r"(?!\.)[A-Za-z0-9_.-]{1,120}")
# Without one of these a JSON file holds no character that a terminal would obey.
_MAY_BE_OBEYED = re.compile(rb"\\[ubfr]|[\x7f-\xff]")


#: What a work directory may hold that has lost its ``study.json``.
_OURS = (
    "results",
    "trials",
    "prefixes",
    "snapshots",
    "packs",
    "logs",
    "tables",
    "figures",
    "report.html",
    "published.json",
    "lease",
    "study.py",
    "frame.parquet",
)
#: What schedulers and shells leave in any directory, and what is hidden; it is left alone.
_HARMLESS = (".*", "*.out", "*.err", "*.log", "*.[oe][0-9]*", "core", "core.[0-9]*")


class StoreError(ValueError):
    """A work directory that cannot be used as asked: one sentence that says why and what to do."""


def identifier(text: str) -> str:
    """Return the text if it can name a trial, a phase, a program or a sweep.

    Raises:
      StoreError: if it cannot.

    >>> identifier("../../etc")
    Traceback (most recent call last):
    mtl.sweep.documents.StoreError: '../../etc' cannot be a name: names are of letters, digits, _ and - only
    """
    if not IDENTIFIER.fullmatch(text):
        raise StoreError(f"{text[:100]!r} cannot be a name: names are of letters, digits, _ and - only")
    return text


def inside(root: Path, *parts: str) -> Path:
    """Return a path in a directory.

    Raises:
      StoreError: for a name that could lead out of it, or a symbolic link that does.
    """
    path, at, links = root.joinpath(*parts), str(root), 0
    for part in parts:
        if not _NAME.fullmatch(part):
            raise StoreError(f"{root}: {part[:100]!r} is no name of a file in a work directory")
        at = os.path.join(at, part)
        links += os.path.islink(at)
    try:  # Without a link below the directory nothing leads out of it, and need not be resolved.
        leads_out = bool(links) and not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # Links in a circle.
        leads_out = True
    if leads_out:
        raise StoreError(f"{path} is a link that leads out of the work directory: it is not followed")
    return path


def may_be_there(name: str) -> bool:
    """Return whether a directory that holds this can be a study's whose ``study.json`` is lost.

    >>> may_be_there("results"), may_be_there("slurm-1.out"), may_be_there("thesis.tex")
    (True, True, False)
    """
    return name in _OURS or is_of_a_system(name) or any(fnmatch.fnmatchcase(name, pattern) for pattern in _HARMLESS)


def load_document(
    file: Path, schema: Any, also: Callable[[dict[str, Any]], None] = lambda found: None
) -> dict[str, Any]:
    """Return a JSON file of ours that is as a schema says, and as ``also`` checks.

    Raises:
      DamagedError: if its bytes are not those that were written.
      StoreError: if another version of mtl wrote it.
    """
    data = read(file, MAX_JSON_BYTES)
    try:
        found = parse(data)
        if found.get("format") != 1 or DIGEST in found:  # One of format 1 has no digest: it is refused for its format.
            found = unseal(data)
        check_format(file, found)
        found = harmless(found, data)
        check(found, schema)
        also(found)
    except DamagedError as error:
        raise DamagedError(f"{file} {error}") from None
    return found


def check_format(file: Path, about: Mapping[str, Any]) -> None:
    """Check that a file is of the format that is read.

    Args:
      file: what to call it.
      about: what it says of itself.

    Raises:
      StoreError: if another version of mtl wrote it.
    """
    if about.get("format") != FORMAT:
        raise StoreError(
            f"{file} is of format {about.get('format')}, and this version of mtl reads {FORMAT}: another version of "
            "mtl wrote it; choose another --workdir to run the study anew"
        )


def harmless(found: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Return a JSON object, read from these bytes, whose texts are fit to be shown."""
    return found if is_plain(data) or not _MAY_BE_OBEYED.search(data) else _shown(found)


def is_plain(data: bytes) -> bool:
    """Return whether JSON surely holds nothing that must be escaped to be shown; quicker than to look for what must."""
    return data.isascii() and b"\\" not in data and b"\x7f" not in data


def _shown(value: Any) -> Any:
    """Return a JSON value whose texts are fit to be shown: tables, pages and sentences are made of them."""
    if isinstance(value, dict):
        return {escape(key): _shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return escape(value) if isinstance(value, str) else value
