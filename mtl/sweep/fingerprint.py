"""What decides a trial's numbers beside its config: its data, our code, the config file's, the weights it begins from.

A trial's address is its resolved config alone. Its result holds this fingerprint; one that differs is stale.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import mtl
from mtl.host.files import FileError, read
from mtl.sweep.cache import cache_folder, keep
from mtl.sweep.sources import Sources, digest_of, parsed

#: ``{part: {"sha256": …, "of": what it is of}}``; ``init`` is there if the trial begins from weights.
Fingerprint = Mapping[str, Mapping[str, str]]

#: What the parts are called.
PARTS = {"data": "the data", "code": "mtl's code", "config": "the config file's code", "init": "the weights"}

#: Of the package, what no trial's numbers depend on: what settles a config, which the address covers; where and when
#: trials run; what is kept and shown. Everything else is ``code``, also what is new.
NOT_COMPUTING = (
    *("__init__.py", "cli.py", "canvas.py", "commands", "host", "report"),
    *("config/beside.py", "config/checks.py", "config/declaration.py", "config/default.py", "config/fields.py"),
    *("config/load.py", "config/problems.py"),
    *("data/catalogue.py", "data/contact_sheet.py", "data/describe.py", "data/sets/about.py", "data/summary.py"),
    *("data/tfds/download.py",),
    *("sweep/__init__.py", "sweep/cache.py", "sweep/chosen.py", "sweep/documents.py"),
    *("sweep/expand.py", "sweep/provenance.py"),
    *("sweep/fingerprint.py", "sweep/frames.py", "sweep/launch.py", "sweep/lease.py", "sweep/schema.py"),
    *("sweep/snapshots.py", "sweep/sources.py", "sweep/store.py", "sweep/study.py", "sweep/trained.py"),
    *("sweep/worker.py", "sweep/workers.py"),
)


@functools.lru_cache(maxsize=64)
def fingerprint(data: tuple[str, str], sources: Sources, init: tuple[str, str] = ("", "")) -> Fingerprint:
    """Return a trial's fingerprint.

    Args:
      data: (sha256 of its table, what that was read from).
      sources: what the config file adds to the code.
      init: (sha256 of the weights that it begins from, their path); empty if it begins at random.
    """
    found = {
        "data": {"sha256": data[0], "of": data[1]},
        "code": {"sha256": code(), "of": f"mtl {mtl.__version__}"},
        "config": {"sha256": sources.sha256, "of": sources.of},
    }
    return found | ({"init": {"sha256": init[0], "of": init[1]}} if init[0] else {})


def digests(of: Fingerprint) -> dict[str, str]:
    """Return the sha256 of each part, without the words for people."""
    return {part: of[part]["sha256"] for part in PARTS if part in of}


def name_of(of: Fingerprint) -> str:
    """Return a short name that fingerprints share only if they are the same."""
    return hashlib.sha256(repr(digests(of)).encode()).hexdigest()[:16]


def changed(then: Fingerprint, now: Fingerprint) -> str:
    """Return what has changed between two fingerprints, in words; empty if nothing has.

    >>> then = {"data": {"sha256": "aa", "of": "t.csv"}, "code": {"sha256": "bb", "of": "mtl 1"}}
    >>> changed(then, then), changed(then, then | {"data": {"sha256": "cc", "of": "t.csv"}})
    ('', 'the data changed (t.csv)')
    """
    told = []
    for part, what in PARTS.items():
        a, b = then.get(part, {}), now.get(part, {})
        if a.get("sha256", "") != b.get("sha256", ""):
            of = b.get("of") or a.get("of")
            told.append(f"{what} changed" + (f" ({of})" if of else ""))
    return ", ".join(told)


@functools.cache
def code() -> str:
    """Return ``code_of`` the package that this process runs."""
    return code_of(Path(mtl.__file__).parent, cache_folder())


def code_of(package: Path, cache: Path | None) -> str:
    """Return the sha256 of the syntax trees, without docstrings, of a package's modules that compute.

    Args:
      package: the directory of ``mtl``.
      cache: parsing takes a third of a second, so what came of it is kept here, by the sha256 of the modules' bytes.
    """
    names = [path.relative_to(package).as_posix() for path in sorted(package.rglob("*.py"))]
    shown = [name for name in names if not f"/{name}".count("/.")]  # Systems and editors keep hidden copies.
    idle = tuple(f"{other}/" for other in NOT_COMPUTING)
    contents = {name: (package / name).read_bytes() for name in shown if not f"{name}/".startswith(idle)}
    how = {name: (package / name).read_bytes() for name in ("sweep/fingerprint.py", "sweep/sources.py")}
    raw = hashlib.sha256()
    for name, content in (contents | how).items():
        raw.update(f"{name}\0{len(content)}\0".encode() + content)
    kept = cache / "sources" / raw.hexdigest() if cache is not None else None
    if kept is not None:
        with contextlib.suppress(FileError):
            if re.fullmatch("[0-9a-f]{64}", known := read(kept, 64).decode("ascii", "replace")):
                return known
    trees = "".join(f"{name}\0{digest_of(parsed(content) or content)}" for name, content in contents.items())
    whole = hashlib.sha256(trees.encode()).hexdigest()
    if kept is not None:
        keep(kept, whole.encode())
    return whole


def stale_sentences(stale: Iterable[str], then: str) -> list[str]:
    """Return a sentence for each reason for which results are stale.

    Args:
      stale: the reason of each.
      then: what becomes of them.

    >>> stale_sentences(["the data changed (t.csv)"] * 3, "run again")
    ['3 trials are stale: the data changed (t.csv); run again']
    """
    reasons = collections.Counter(stale).items()
    return [f"{n:,} trial{'s are' if n > 1 else ' is'} stale: {reason}; {then}" for reason, n in reasons]
