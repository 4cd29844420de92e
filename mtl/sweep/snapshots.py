"""Packs that were interrupted: kept between chunks, and gone on with lane by lane."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from mtl.checkpoint import CheckpointError, load_about, load_tree, save_tree
from mtl.host.files import DamagedError
from mtl.params import flatten, unflatten
from mtl.sweep.schema import SNAPSHOT, check
from mtl.sweep.store import FORMAT
from mtl.train.loop import Checkpointer, Snapshot, Stopped
from mtl.train.processes import any_of_us, is_lead

#: Seconds between snapshots of a pack that nobody interrupts.
EVERY_SECONDS = 60.0


class Interrupt:
    """Whether this process was asked to stop, by SIGINT or SIGTERM; the second signal ends it at once.

    Attributes:
      number: the signal, or 0.
    """

    def __init__(self) -> None:
        """Nothing has been asked yet."""
        self.number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number

    def ask(self) -> None:
        """Ask the process to stop, as SIGTERM would."""
        self.number = self.number or signal.SIGTERM

    @contextlib.contextmanager
    def listening(self) -> Iterator[Interrupt]:
        """Take signals while the context lasts."""
        before = {n: signal.signal(n, self) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for n, handler in before.items():
                signal.signal(n, handler)


class Snapshots:
    """The snapshots of a work directory, by phase: which file and lane has it, and how many steps it has done."""

    def __init__(self, folder: Path, interrupt: Interrupt, say: Callable[[str], None]) -> None:
        """Read what there is.

        Args:
          folder: where they are kept.
          interrupt: whether to stop.
          say: told of snapshots that cannot be used.
        """
        self.folder, self.interrupt, self.say = folder, interrupt, say
        self._writer, self._writing = ThreadPoolExecutor(1), Future[None]()
        self._writing.set_result(None)
        self._where: dict[str, tuple[Path, int, int]] = {}
        self._held: dict[Path, set[str]] = {}  # The phases in each file, whether a newer one has them or not.
        self._read()
        any_of_us(False)  # Nobody writes before all have read.

    def _read(self) -> None:
        """Find the newest good snapshot of each phase, by its steps."""
        self._where.clear()
        self._held.clear()
        for file in sorted(self.folder.glob("[!.]*.safetensors")) if self.folder.is_dir() else ():
            if file.is_symlink():
                self.say(f"{file} is a link: it is not followed")
                continue
            try:
                about = load_about(file)
                check(about, SNAPSHOT)
            except (CheckpointError, DamagedError) as error:
                self._reject(file, str(error))
                continue
            if about.get("format") == FORMAT:
                self._held[file] = set(about["keys"])
                for lane, key in enumerate(about["keys"]):
                    if about["at"] >= self.at(key):
                        self._where[key] = (file, lane, about["at"])

    def _reject(self, file: Path, why: str) -> None:
        """Say why a snapshot is not used, and remove it."""
        if not file.exists():  # Another worker has done so.
            return
        name = "" if str(file) in why else f"{file} "
        self.say(f"{name}{why}; the phases in it go on from an earlier snapshot, or begin anew")
        if is_lead() and file.is_file():
            file.unlink()

    def at(self, key: str) -> int:
        """Return how many steps of a phase are done."""
        return self._where[key][2] if key in self._where else 0

    def guard(self, keys: Sequence[str]) -> Checkpointer:
        """Return the guard of a pack of these phases."""
        return _DiskCheckpointer(self, list(keys))

    def load(self, keys: Sequence[str]) -> Snapshot | None:
        """Return the state of a pack of phases that have all done as many steps; nothing if they have done none.

        A file that was good when this process began and is not any more is rejected, and an earlier one taken.
        """
        while all(key in self._where for key in keys) and len({self.at(key) for key in keys}) == 1:
            trees = {}
            for file in {self._where[key][0] for key in keys}:
                try:
                    trees[file] = load_tree(file)
                    if not _is_whole(*trees[file]):
                        raise CheckpointError(f"{file} holds no snapshot of the phases that it names")
                except CheckpointError as error:
                    self._reject(file, str(error))
                    self._read()
                    break
            else:
                return self._joined(keys, trees)
        return None

    def _joined(self, keys: Sequence[str], trees: dict[Path, tuple[dict[str, Any], dict[str, Any]]]) -> Snapshot:
        """Return the lanes of some phases, from the files that hold them."""
        places = [self._where[key] for key in keys]
        moving = {file: flatten(tree["moving"]) for file, (tree, _) in trees.items()}
        first, _, at = places[0]
        about = trees[first][1]

        def curves(name: str) -> list[np.ndarray]:
            return list(np.stack([trees[file][0][name][:, lane] for file, lane, _ in places], axis=1))

        return Snapshot(
            {path: np.stack([moving[file][path][lane] for file, lane, _ in places]) for path in moving[first]},
            at,
            curves("train"),
            curves("val"),
            curves("score"),
            float(about["seconds"]) * len(keys),
            int(about["data"]),
        )

    def save(self, keys: Sequence[str], kept: Snapshot) -> None:
        """Write the state of a pack; the one before it stays, in case this one is damaged.

        Raises:
          FileError: if it cannot be written.
        """
        lanes = len(keys)
        tasks = kept.val[0].shape[1] if kept.val else 0
        curves = {
            name: np.asarray(found, np.float32).reshape(len(found), lanes, tasks)
            for name in _CURVES
            for found in [getattr(kept, name)]
        }
        tree = {"moving": unflatten({path: array[:lanes] for path, array in kept.moving.items()}), **curves}
        about = {"format": FORMAT, "keys": list(keys), "at": kept.at, "data": kept.data}
        file = self._file(keys, kept.at)
        before = self._generations(file)
        save_tree(file, tree, about | {"seconds": kept.spent / lanes})
        for old in before[:-1]:
            if old != file:
                old.unlink(missing_ok=True)
        self._held[file] = set(keys)
        for lane, key in enumerate(keys):
            self._where[key] = (file, lane, kept.at)

    def save_meanwhile(self, keys: Sequence[str], kept: Snapshot) -> None:
        """Write the state of a pack while it trains on; it must be the writer's own. See ``settle``.

        Raises:
          FileError: if the one before it could not be written.
        """
        self.settle()  # One at a time: memory holds one state beside the present one, and files come in order.
        self._writing = self._writer.submit(self.save, keys, kept)

    def settle(self, wait: bool = True) -> None:
        """Wait for what is being written, or only look whether it failed.

        Raises:
          FileError: if it could not be written.
        """
        if wait or self._writing.done():
            self._writing.result()

    def discard(self, done: Collection[str]) -> None:
        """Remove the files that hold nothing but phases that are done."""
        for file in [file for file, keys in self._held.items() if keys.issubset(done)]:
            if is_lead():
                file.unlink(missing_ok=True)
            for key in self._held.pop(file):
                self._where.pop(key, None)

    def _file(self, keys: Sequence[str], at: int) -> Path:
        return self.folder / f"{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:24]}-{at:012d}.safetensors"

    def _generations(self, file: Path) -> list[Path]:
        """Return the snapshots of a file's pack, by their steps: their times say nothing on a clock that jumps."""
        return sorted(self.folder.glob(f"{file.name.partition('-')[0]}-*.safetensors"))


#: What a snapshot holds beside what moves.
_CURVES = ("train", "val", "score")


def _is_whole(tree: dict[str, Any], about: dict[str, Any]) -> bool:
    """Return whether a file holds a snapshot: a lane in each array for each of the phases that it names."""
    lanes, curves = len(about["keys"]), np.shape(tree.get("train", ()))
    return (
        set(tree) == {"moving", *_CURVES}
        and isinstance(tree["moving"], dict)
        and len(curves) == 3
        and curves[1] == lanes
        and all(np.shape(tree[name]) == curves for name in _CURVES)
        and all(array.shape[:1] == (lanes,) for array in flatten(tree["moving"]).values())
    )


class _DiskCheckpointer(Checkpointer):
    """Keeps one pack: every minute, and when the process is asked to stop."""

    def __init__(self, snapshots: Snapshots, keys: list[str]) -> None:
        self.snapshots, self.keys, self.kept = snapshots, keys, time.monotonic()

    def restore(self) -> Snapshot | None:
        return self.snapshots.load(self.keys)

    def boundary(self, take: Callable[[], Snapshot]) -> None:
        self.snapshots.settle(wait=False)
        stop = any_of_us(bool(self.snapshots.interrupt.number))
        due = any_of_us(is_lead() and time.monotonic() - self.kept >= EVERY_SECONDS)
        if not stop and not due:
            return
        state = take()  # On every process: parts of it may be on other hosts.
        if is_lead() and stop:
            self.snapshots.settle()
            self.snapshots.save(self.keys, state)
        elif is_lead():
            # The next step may overwrite what it was taken from.
            own = {path: np.array(array) for path, array in state.moving.items()}
            lists: dict[str, Any] = {name: list(getattr(state, name)) for name in _CURVES}
            copied = dataclasses.replace(state, moving=own, **lists)
            self.snapshots.save_meanwhile(self.keys, copied)
        self.kept = time.monotonic()
        if stop:
            raise Stopped
