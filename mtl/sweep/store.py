"""A work directory: one study, results of many trials a file, each there whole or not at all."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl.host.files import DamagedError, FileError, seal, sha256_of_file, write_all
from mtl.sweep import shards
from mtl.sweep.documents import FORMAT, IDENTIFIER, StoreError, identifier, inside, load_document, may_be_there
from mtl.sweep.fingerprint import Fingerprint, changed, stale_sentences
from mtl.sweep.lease import Lease, held
from mtl.sweep.schema import FAILURE, STUDY, WIDTHS, check_study
from mtl.sweep.shards import NewResult, Shard
from mtl.sweep.sources import Sources

_WRITES_IT_ANEW = (
    "run `mtl sweep` with the same config and --workdir again, which writes it anew and trains nothing twice"
)
#: Models are read through at the start of a command up to so many bytes together.
_MODEL_BYTES = 2**30
#: Predictions that have been read are held up to so many bytes together.
_HELD_BYTES = 2**28


class NoResultError(StoreError):
    """A sweep without one complete cell: there is no table of it."""


def now() -> str:
    """Return the time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class Workdir:
    """The files of one study.

    ``study.json`` says whose it is and lists the trials of each sweep. Results and predictions lie in ``results``,
    those of trials that ended together in one file (see ``sweep.shards``): a result there means done. A model, or why
    a trial failed, lies in ``trials/HASH``. What is read again is verified: each file holds its own sha256, and a
    result that of its model.
    """

    def __init__(self, path: str | Path, writes: bool = True) -> None:
        """Point at a directory; nothing is made or read yet.

        Args:
          path: where it is.
          writes: whether this process writes there; of several that run together only one does.
        """
        self.path, self.writes = Path(path), writes
        self._looked = False
        self._read: set[str] = set()  # Names of shards.
        self._done: dict[str, dict[str, Any]] = {}
        self._where: dict[str, Path] = {}  # The newest shard that holds a trial.
        self._held: dict[Path, Shard] = {}  # The last that were used.
        #: What was found damaged, one sentence each, by trial (or by file, if it is no trial's).
        self.damaged: dict[str, str] = {}
        #: What the config file adds to the code that trials are run with.
        self.sources = Sources()
        #: The fingerprints that results must have, by trial; what has another is stale.
        self.expected: dict[str, Fingerprint] = {}
        #: What has changed since a stale result was made, by trial.
        self.stale: dict[str, str] = {}
        self._told: set[str] = set()
        self._complete: set[str] = set()
        self._model_bytes_left = _MODEL_BYTES
        #: What shows that nobody else writes here, while this process does.
        self.lease: Lease | None = None

    @contextlib.contextmanager
    def held(self, say: Callable[[str], None], on_lost: Callable[[], None]) -> Iterator[None]:
        """Keep every other process from writing here while the context lasts; see ``lease.held``.

        Raises:
          HeldError: if another process writes here.
        """
        self.inside("lease")
        with held(self.path, say, on_lost, self.writes) as self.lease:
            lease = self.lease
            try:
                yield
                self.tidy()
            finally:
                self.lease = None
                if lease is not None:
                    lease.check()

    def news(self, then: str) -> list[str]:
        """Return what was found damaged or stale and has not been returned yet, a sentence each.

        Args:
          then: what becomes of stale results.
        """
        news = [sentence for sentence in self.damaged.values() if sentence not in self._told]
        self._told.update(news)
        stale = {digest: reason for digest, reason in self.stale.items() if digest not in self._told}
        self._told.update(stale)
        return news + stale_sentences(stale.values(), then)

    def expect(self, entry: Mapping[str, Any]) -> None:
        """Expect of a sweep's trials the fingerprints that it was planned with.

        Args:
          entry: the sweep, from ``study.json``.
        """
        self.expected |= {t["hash"]: entry["fingerprints"][t["fingerprint"]] for t in entry["trials"]}

    @property
    def study_file(self) -> Path:
        """``study.json``."""
        return self.inside("study.json")

    def inside(self, *parts: str) -> Path:
        """Return a path in this directory.

        Raises:
          StoreError: for a name that could lead out of it, or a symbolic link that does.
        """
        return inside(self.path, *parts)

    def study(self) -> dict[str, Any]:
        """Return ``study.json``.

        Raises:
          StoreError: if there is none, or it is damaged.
        """
        if not self.study_file.is_file():
            what = "is empty" if self.path.is_dir() and not any(self.path.iterdir()) else "holds no study.json"
            if not self.path.exists():
                what = "does not exist"
            if (self.path / "results").is_dir():
                raise StoreError(f"work directory {self.path} {what}, but it holds results: {_WRITES_IT_ANEW}")
            raise StoreError(f"work directory {self.path} {what}: run `mtl sweep --workdir={self.path}` first")
        try:
            study = load_document(self.study_file, STUDY, check_study)
        except DamagedError as error:
            raise StoreError(f"{error}; its trials' results are not lost: {_WRITES_IT_ANEW}") from None
        for name, entry in study["sweeps"].items():
            for text in (name, *(trial["hash"] for trial in entry["trials"])):
                if not IDENTIFIER.fullmatch(text):
                    raise StoreError(f"{self.study_file} names {text!r}: names are of letters, digits, _ and - only")
        return study

    def open(self, name: str) -> dict[str, Any]:
        """Return ``study.json`` for the study of that name, or a new one if there is none yet.

        One that is lost or damaged is begun anew; each sweep that is run writes its own part again.

        Raises:
          StoreError: if the directory belongs to another study, or holds something else.
        """
        new: dict[str, Any] = {"format": FORMAT, "study": name, "created": now(), "sweeps": {}}
        if not self.study_file.is_file():
            if self.path.exists() and not self.path.is_dir():
                raise StoreError(f"--workdir={self.path} is a file: it must be a directory")
            names = sorted(p.name for p in self.path.iterdir()) if self.path.is_dir() else []
            others = [name for name in names if not may_be_there(name)]
            if self.study_file.is_file():  # Another process of this run has written it in this moment.
                return self.open(name)
            if others:
                raise StoreError(
                    f"--workdir={self.path} holds other files ({', '.join(others[:3])}) and no study.json: choose a "
                    "new directory"
                )
            if (self.path / "results").is_dir():
                self.damaged["study.json"] = f"{self.study_file} is lost: it is written anew, for what is run now"
            return new
        try:
            study = load_document(self.study_file, STUDY, check_study)
        except DamagedError as error:
            self.damaged["study.json"] = f"{error}: it is written anew, for what is run now"
            return new
        if study.get("study") != name:
            raise StoreError(
                f'--workdir={self.path} belongs to the study "{study.get("study")}", not to "{name}": '
                "choose another directory"
            )
        return study

    def write_study(self, study: Mapping[str, Any]) -> None:
        """Write ``study.json``."""
        self._write([(self.study_file, seal({**study, "format": FORMAT}, indent=1))])

    def trial(self, digest: str, *file: str) -> Path:
        """Return a trial's directory, or a file in it."""
        return self.inside("trials", identifier(digest), *file)

    def prefix(self, key: str) -> Path:
        """Return the file of a phase that several trials share."""
        return self.inside("prefixes", f"{identifier(key)}.safetensors")

    def look(self) -> None:
        """Read the shards that were written since the last look, by whomever."""
        self._looked = True
        for name in (n for n in self._names() if n not in self._read):
            file = self.inside("results", name)
            try:
                shard = self._shard(file)
            except FileError as error:
                if isinstance(error, DamagedError):
                    self._read.add(name)
                elif file.is_file():  # It may be whole: its trials must not run again because a disk failed to answer.
                    raise
                self.damaged[name] = f"{error}: the trials in it count as not done"
                continue
            self._read.add(name)
            for digest, why in shard.damaged.items():
                self.damaged[digest] = f"{why}: trial {digest} counts as not done"
            for digest, result in shard.results.items():
                if digest not in self._where or shards.order(self._where[digest].name) < shards.order(name):
                    self._done[digest], self._where[digest] = result, file
                    self._complete.discard(digest)
                    self.damaged.pop(digest, None)  # It has been run again.

    def _names(self) -> list[str]:
        """Return the names of the shards, the oldest first."""
        folder = self.inside("results")
        names = filter(shards.NAME.fullmatch, os.listdir(folder)) if folder.is_dir() else ()
        return sorted(names, key=shards.order)

    def tidy(self) -> None:
        """Remove the shards that hold no trial's newest result: damaged ones, and those of what has all run again."""
        if not self.writes:
            return
        for name in self._read - {file.name for file in self._where.values()}:
            self.inside("results", name).unlink(missing_ok=True)
            self._read.discard(name)

    def _shard(self, file: Path) -> Shard:
        """Return what a shard holds; tables ask for the trials of many, in an order of their own."""
        shard = self._held.pop(file, None) or shards.load(file)
        self._held[file] = shard
        while len(self._held) > 1 and sum(held.bytes for held in self._held.values()) > _HELD_BYTES:
            self._held.pop(next(iter(self._held)))
        return shard

    def hashes(self) -> list[str]:
        """Return the hashes of the trials that have a result here, be it stale."""
        if not self._looked:
            self.look()
        return sorted(self._where)

    def result(self, digest: str) -> dict[str, Any] | None:
        """Return a trial's result, or nothing if it is not done.

        A result in a damaged shard counts as not done; ``damaged`` then says why. So does one that is stale, as
        ``stale`` says; it stays until it is written again. What other processes have written is seen after ``look``.

        Raises:
          FileError: if a shard cannot be read, which is no sign of damage.
          StoreError: if a shard is of a version of mtl that is not read.
        """
        if not self._looked:
            self.look()
        if (result := self._done.get(identifier(digest))) is None:
            return None
        self.stale.pop(digest, None)
        if digest in self.expected and (why := changed(result["fingerprint"], self.expected[digest])):
            self.stale[digest] = why
            return None
        return result

    def complete(self, digest: str) -> bool:
        """Return whether a trial is done and its model, unless somebody removed it, is the one that was written.

        If somebody removed its directory with the model in it, the trial is to run again.

        Of models beyond ``_MODEL_BYTES`` in one command only the lengths are compared here, since reading hundreds of
        large ones would take minutes. Whoever reads one (``mtl.load``, ``init.path``) compares the sha256, always.
        """
        result = self.result(digest)
        if result is None:
            return False
        about = result.get("files", {}).get("model.safetensors")
        if digest in self._complete or about is None:
            return True
        model = self.trial(digest, "model.safetensors")
        if not model.is_file():
            if model.parent.is_dir() and not model.with_name("failed.json").is_file():
                return True
            del self._done[digest]
            return False
        self._model_bytes_left -= about["bytes"]
        same = model.stat().st_size == about["bytes"]
        if same and self._model_bytes_left >= 0:
            same = sha256_of_file(model) == about["sha256"]
        if not same:
            self.damaged[digest] = f"{model} is damaged: trial {digest} counts as not done"
            del self._done[digest]
            return False
        self._complete.add(digest)
        return True

    def write_results(self, results: Sequence[NewResult]) -> None:
        """Write some trials' models, then their results and predictions, as one shard, which appears whole."""
        if not results:
            return
        hashes = [identifier(new.result["hash"]) for new in results]
        models = zip(hashes, (new.model for new in results), strict=True)
        contents = [(self.trial(d, "model.safetensors"), model) for d, model in models if model is not None]
        number = 1 + max((shards.order(name)[0] for name in self._names()), default=0)
        shard = self.inside("results", f"{number:08d}-{hashes[0]}.safetensors")
        self._write([*contents, (shard, shards.dump(results))])
        for digest in hashes if self.writes else ():  # Why it failed before is no longer of interest.
            self.trial(digest, "failed.json").unlink(missing_ok=True)
        if self._looked:
            self.look()

    def write_prefixes(self, phases: Iterable[tuple[str, bytes]]) -> None:
        """Write phases that several trials share, by key."""
        if self.writes:
            self._write([(self.prefix(key), content) for key, content in phases])

    def write_failure(self, digest: str, failure: Mapping[str, Any]) -> None:
        """Write why a trial failed; it is not done, and runs again next time."""
        self._write([(self.trial(digest, "failed.json"), seal({**failure, "format": FORMAT}))])

    def failure(self, digest: str) -> str | None:
        """Return why a trial failed, if it did and has no result since."""
        file = self.trial(digest, "failed.json")
        if not file.is_file() or self.result(digest) is not None:
            return None
        try:
            return str(load_document(file, FAILURE)["error"])
        except DamagedError as error:
            return f"it failed, and why is lost: {error}"

    def predictions(self, digest: str, task: str) -> Mapping[str, np.ndarray]:
        """Return a trial's ``outputs`` on a task's test set, the ``rows`` of the table, ``labels``, ``groups`` if any.

        Args:
          digest: the trial's hash.
          task: its name, as the result has it.

        Raises:
          StoreError: if there are none, or they are damaged.
        """
        if not self._looked:
            self.look()
        if (file := self._where.get(identifier(digest))) is None:
            raise StoreError(f"{self.path} holds no result of trial {digest}")
        try:
            found = self._shard(file).predictions.get(digest, {})
        except FileError as error:
            raise StoreError(str(error)) from None
        if task not in found:
            raise StoreError(f"{file}: trial {digest} was not tested on task {task}")
        return found[task]

    def width(self, program: str, placement: str) -> int | None:
        """Return the width that a program's packs have in this directory; nothing if it has not run yet.

        Side by side, a lane's bits depend on how many there are: what is missing of a pack must run at its width. If
        the file that says so is lost or damaged, the results do.
        """
        if (known := self._widths(program).get(placement)) is not None:
            return known
        for digest in self.hashes():
            result = self.result(digest)
            for phase in result["phases"] if result is not None and result["placement"] == placement else ():
                if phase.get("program") == program:
                    return int(phase["width"])
        return None

    def keep_width(self, program: str, placement: str, width: int) -> None:
        """Write the width of a program's packs."""
        widths = self._widths(program) | {placement: width}
        self._write([(self._packs(program), seal({"format": FORMAT, "widths": widths}))])

    def _packs(self, program: str) -> Path:
        return self.inside("packs", f"{identifier(program)}.json")

    def _widths(self, program: str) -> dict[str, int]:
        """Return the width of a program's packs, by placement."""
        file = self._packs(program)
        try:
            return dict(load_document(file, WIDTHS)["widths"]) if file.is_file() else {}
        except DamagedError as error:
            self.damaged[file.name] = f"{error}: the width of its packs is taken from their results"
            return {}

    def _write(self, contents: Sequence[tuple[Path, bytes]]) -> None:
        if self.writes:
            if self.lease is not None:
                self.lease.check()
            write_all(contents)
