"""Shards: what many trials came to, and what they predicted, in one file that holds its own sha256."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl.checkpoint import CheckpointError, dump_tree, load_tree, seal_of
from mtl.host.escape import escape
from mtl.host.files import DamagedError, FileError, about_bytes, parse
from mtl.sweep.cache import cache_folder, keep, version
from mtl.sweep.documents import FORMAT, IDENTIFIER, check_format, harmless, is_plain
from mtl.sweep.schema import RESULT, check, check_result

#: Of a task: what a trial has of its test examples (scores: one each, whose mean is the task's metric), and what it has
#: if its table has groups.
NAMES, GROUPS = ("outputs", "rows", "labels", "scores"), "groups"

#: A shard's name: a number, larger than that of every shard before it, and the hash of its first trial.
NAME = re.compile(r"[0-9]{8,18}-[A-Za-z0-9_-]{1,100}\.safetensors")

#: A task's arrays by name, of each task.
Predictions = Mapping[str, Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Shard:
    """What a shard holds that can be believed.

    Attributes:
      file: where it lies.
      results: JSON-able facts, by the trial's hash.
      damaged: why a trial's part of it cannot be used, by hash.
      bytes: what it takes.
    """

    file: Path
    results: dict[str, dict[str, Any]]
    damaged: dict[str, str]
    bytes: int

    @functools.cached_property
    def predictions(self) -> dict[str, Predictions]:
        """Arrays, by hash and task. They are read when they are asked for, and verified again.

        Raises:
          FileError: if they cannot be read, or have been damaged since.
        """
        found = _tree(self.file, "predictions")[0].get("predictions", {})
        return {d: {escape(task): own for task, own in found.get(d, {}).items()} for d in self.results}


@dataclasses.dataclass(frozen=True)
class NewResult:
    """What a trial came to, to be written.

    Attributes:
      result: JSON-able facts, its hash among them.
      predictions: of each task that it was tested on, its outputs on the test set, [n, outputs] or of a dense task
        [n, *shape, outputs], their rows, labels (-1 or NaN where a position has none) and scores.
      model: the bytes of its model; nothing if it is not kept.
    """

    result: Mapping[str, Any]
    predictions: Predictions
    model: bytes | None = None

    @property
    def bytes(self) -> int:
        """How many bytes there are to write, but for the facts."""
        arrays = (array for own in self.predictions.values() for array in own.values())
        return len(self.model or b"") + sum(array.nbytes for array in arrays)


def order(name: str) -> tuple[int, str]:
    """Return what shards are sorted by, from the oldest to the newest.

    >>> sorted(["100000000-a.safetensors", "99999999-b.safetensors"], key=order)[0]
    '99999999-b.safetensors'
    """
    return int(name.partition("-")[0]), name


def dump(results: Sequence[NewResult]) -> bytes:
    """Return a shard of some trials; its bytes depend on nothing else. Of each model it says the size and sha256."""
    facts: dict[str, Any] = {}
    for new in results:
        files = {} if new.model is None else {"model.safetensors": about_bytes(new.model)}
        facts[new.result["hash"]] = {**new.result, "files": files}
    told = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    predictions = {new.result["hash"]: new.predictions for new in results}
    return dump_tree({"results": np.frombuffer(told, np.uint8), "predictions": predictions}, {"format": FORMAT})


def load(file: Path) -> Shard:
    """Return what a shard holds.

    To check results takes several times as long as to read them. So the user's cache says of a shard, by its sha256,
    which is verified always, that nothing was found wrong with it.

    Raises:
      FileError: if it cannot be read.
      DamagedError: if its bytes are not those that were written.
      StoreError: if another version of mtl wrote it.
    """
    mark = _mark(file)
    if mark is not None and mark.is_file():
        facts = _tree(file, "results")[0]["results"].tobytes()
        return Shard(file, json.loads(facts), {}, len(facts))
    tree, about = _tree(file)
    if "format" not in about:
        raise DamagedError(f"{file} is damaged: it has lost its format")
    check_format(file, about)
    told, predictions = tree.get("results"), tree.get("predictions", {})
    if not isinstance(told, np.ndarray) or told.dtype != np.uint8 or not isinstance(predictions, dict):
        raise DamagedError(f"{file} holds no results")
    facts = told.tobytes()
    try:
        found = harmless(parse(facts), facts)
    except DamagedError as error:
        raise DamagedError(f"{file} {error}") from None
    shard = Shard(file, {}, {}, len(facts))
    for digest, result in found.items():
        name = digest if IDENTIFIER.fullmatch(digest) else repr(digest[:40])
        try:
            if name != digest:
                raise DamagedError(f"holds a trial of the name {name}")
            _check_finite(result)
            check(result, RESULT)
            check_result(result)
            if result["hash"] != digest:
                raise DamagedError(f"holds trial {result['hash'][:40]!r} in the place of trial {digest[:40]!r}")
            own = predictions.get(digest, {})
            own = {escape(task): arrays for task, arrays in own.items()} if isinstance(own, dict) else own
            _check_predictions(own, result)
        except DamagedError as error:
            shard.damaged[name] = f"{file} {error}"
            continue
        shard.results[digest] = result
    if mark is not None and not shard.damaged and is_plain(facts):
        keep(mark, b"")
    return shard


def _tree(file: Path, only: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (arrays, facts) of a shard's file; see ``load``."""
    try:
        return load_tree(file, only)
    except CheckpointError as error:
        kind = FileError if isinstance(error.__cause__, OSError) else DamagedError
        raise kind(str(error)) from None


def _mark(file: Path) -> Path | None:
    """Return the file of the cache that is there if a shard of this sha256 was checked by this version of mtl."""
    folder = cache_folder()
    try:
        seal = seal_of(file)
    except OSError:  # Who reads it says so.
        return None
    name = hashlib.sha256(f"{version()} {FORMAT} {seal}".encode()).hexdigest()
    return folder / "checked" / name if folder is not None and seal else None


def _check_finite(result: Any) -> None:
    try:
        json.dumps(result, allow_nan=False)
    except ValueError:
        raise DamagedError("holds a number that is not finite") from None


def _check_predictions(found: Any, result: Mapping[str, Any]) -> None:
    """Check that an example of each task that was tested has a row of numbers, a label, a score, a place in the table.

    And the number of its group, where there are groups.

    Raises:
      DamagedError: if not; the file is not named.
    """
    if not isinstance(found, dict) or not result.get("test", {}).keys() <= found.keys():
        raise DamagedError(f"holds no predictions of {', '.join(result.get('test', {}))}")
    for task, own in found.items():
        good = isinstance(own, dict) and own.keys() - {GROUPS} == set(NAMES)
        good = good and all(isinstance(a, np.ndarray) and a.dtype.kind in "fiu" for a in own.values())
        good = good and own["outputs"].ndim >= 2 and own["outputs"].shape[-1] > 0
        good = good and (GROUPS not in own or own[GROUPS].dtype.kind in "iu")
        good = good and own["labels"].shape == own["outputs"].shape[:-1]
        each = {name: a for name, a in own.items() if name not in ("outputs", "labels")} if good else {}
        if not good or any(a.shape != own["outputs"].shape[:1] for a in each.values()):
            raise DamagedError(
                f"holds no outputs [n, k], rows, labels and scores [n] (and groups [n]) of {task[:40]!r}"
            )
