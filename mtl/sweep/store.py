"""A work directory: one study, one directory a trial, results that are there whole or not at all."""

from __future__ import annotations

import datetime
import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import mtl
from mtl.checkpoint import write_atomically
from mtl.config import Trial, canonical

FORMAT = 1


class StoreError(ValueError):
    """A work directory that cannot be used as asked: one sentence that says why and what to do."""


class NoResultError(StoreError):
    """A sweep without one complete cell: there is no table of it."""


@functools.lru_cache(maxsize=1)
def code_version() -> str:
    """Return the version and a digest of the code that decides a trial's numbers."""
    root = Path(mtl.__file__).parent
    rooms = ("params.py", "tasks.py", "losses.py", "metrics", "models", "data", "regimes.py", "train")
    digest = hashlib.sha256()
    for room in rooms:
        path = root / room
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return f"{mtl.__version__}+{digest.hexdigest()[:12]}"


def now() -> str:
    """Return the time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class Workdir:
    """The files of one study.

    ``study.json`` says whose it is and lists the trials of each sweep; ``trials/HASH/result.json`` means done.
    """

    def __init__(self, path: str | Path, writes: bool = True) -> None:
        """Point at a directory; nothing is made or read yet.

        Args:
          path: where it is.
          writes: whether this process writes there; of several that run together only one does.
        """
        self.path, self.writes = Path(path), writes
        self._done: dict[str, dict[str, Any]] = {}  # A result never changes once it is there.

    @property
    def study_file(self) -> Path:
        """``study.json``."""
        return self.path / "study.json"

    def study(self) -> dict[str, Any]:
        """Return ``study.json``.

        Raises:
          StoreError: if there is none, or it is damaged.
        """
        if not self.study_file.is_file():
            what = "is empty" if self.path.is_dir() and not any(self.path.iterdir()) else "holds no study.json"
            if not self.path.exists():
                what = "does not exist"
            raise StoreError(f"work directory {self.path} {what}: run `mtl sweep --workdir={self.path}` first")
        return self._json(self.study_file)

    def open(self, name: str) -> dict[str, Any]:
        """Return ``study.json`` for the study of that name, or a new one if there is none yet.

        Raises:
          StoreError: if the directory belongs to another study, or holds something else.
        """
        if not self.study_file.is_file():
            if self.path.exists() and not self.path.is_dir():
                raise StoreError(f"--workdir={self.path} is a file: it must be a directory")
            if self.path.is_dir() and any(self.path.iterdir()):
                raise StoreError(f"--workdir={self.path} holds other files and no study.json: choose a new directory")
            return {"format": FORMAT, "study": name, "created": now(), "sweeps": {}}
        study = self._json(self.study_file)
        if study.get("study") != name:
            raise StoreError(
                f'--workdir={self.path} belongs to the study "{study.get("study")}", not to "{name}": '
                "choose another directory"
            )
        return study

    def write_study(self, study: Mapping[str, Any]) -> None:
        """Write ``study.json``."""
        self._write(self.study_file, (json.dumps(study, indent=1, sort_keys=True) + "\n").encode())

    def trial(self, digest: str) -> Path:
        """Return a trial's directory."""
        return self.path / "trials" / digest

    def prefix(self, key: str) -> Path:
        """Return the file of a phase that several trials share."""
        return self.path / "prefixes" / f"{key}.safetensors"

    def result(self, digest: str) -> dict[str, Any] | None:
        """Return a trial's result, or nothing if it is not done.

        Raises:
          StoreError: if the file is damaged.
        """
        if digest not in self._done:
            file = self.trial(digest) / "result.json"
            if not file.is_file():
                return None
            self._done[digest] = self._json(file)
        return self._done[digest]

    def write_result(
        self, digest: str, result: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Write a trial's arrays, then its result: the result is there only when everything is."""
        if arrays:
            buffer = io.BytesIO()
            named: dict[str, Any] = dict(arrays)
            np.savez(buffer, **named)
            self._write(self.trial(digest) / "arrays.npz", buffer.getvalue())
        self._write(self.trial(digest) / "result.json", canonical(result).encode())

    def write_failure(self, digest: str, failure: Mapping[str, Any]) -> None:
        """Write why a trial failed; it is not done, and runs again next time."""
        self._write(self.trial(digest) / "failed.json", canonical(failure).encode())

    def failure(self, digest: str) -> str | None:
        """Return why a trial failed, if it did and has no result since."""
        file = self.trial(digest) / "failed.json"
        if not file.is_file() or (self.trial(digest) / "result.json").is_file():
            return None
        return str(self._json(file).get("error", ""))

    def arrays(self, digest: str) -> dict[str, np.ndarray]:
        """Return a trial's arrays (``outputs`` on the test set, ``rows`` of the table, ``labels``).

        Raises:
          StoreError: if the file is missing or damaged.
        """
        file = self.trial(digest) / "arrays.npz"
        try:
            with np.load(file, allow_pickle=False) as found:
                return {k: found[k] for k in found.files}
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise StoreError(f"{file} cannot be read: {error}") from None

    def width(self, program: str, executor: str) -> int | None:
        """Return the width that a program's packs have in this directory; nothing if it has not run yet.

        Side by side, a lane's bits depend on how many there are: what is missing of a pack must run at its width.
        """
        file = self.path / "packs" / f"{program}.json"
        if not file.is_file():
            return None
        return {str(k): int(v) for k, v in self._json(file)["widths"].items()}.get(executor)

    def keep_width(self, program: str, executor: str, width: int) -> None:
        """Write the width of a program's packs."""
        file = self.path / "packs" / f"{program}.json"
        known = self._json(file)["widths"] if file.is_file() else {}
        self._write(file, canonical({"format": FORMAT, "widths": known | {executor: width}}).encode())

    def _write(self, file: Path, content: bytes) -> None:
        if self.writes:
            write_atomically(file, content)

    @staticmethod
    def _json(file: Path) -> dict[str, Any]:
        try:
            found = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"{file} cannot be read: {error}") from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise StoreError(f"{file} is not of format {FORMAT}: it was written by another version of mtl")
        return found


def trial_of(config: Mapping[str, Any]) -> Trial:
    """Return the trial of a resolved config read from a file."""
    return Trial(dict(config))
