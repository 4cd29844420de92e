"""Shards: what many trials came to, and what they predicted, in one file that holds its own sha256."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl.checkpoint import CheckpointError, dump_tree, load_tree
from mtl.files import DamagedError, parse
from mtl.sweep.documents import FORMAT, check_format, harmless
from mtl.sweep.schema import RESULT, check, check_result

#: Of a task: what a trial has of its test examples, and what it has if its table has groups.
NAMES, GROUPS = ("outputs", "rows", "labels"), "groups"

#: A shard's name: a number, larger than that of every shard before it, and the hash of its first trial.
NAME = re.compile(r"([0-9]{8})-[A-Za-z0-9_-]{1,100}\.safetensors")

#: A task's arrays by name, of each task.
Predictions = Mapping[str, Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Shard:
    """What a shard holds that can be believed.

    Attributes:
      results: JSON-able facts, by the trial's hash.
      predictions: arrays, by hash and task.
      damaged: why a trial's part of it cannot be used, by hash.
    """

    results: dict[str, dict[str, Any]]
    predictions: dict[str, Predictions]
    damaged: dict[str, str]


def dump(results: Sequence[tuple[Mapping[str, Any], Predictions]]) -> bytes:
    """Return a shard of some trials' (result, predictions); their bytes depend on nothing else."""
    facts = json.dumps({r["hash"]: r for r, _ in results}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    tree = {"results": np.frombuffer(facts.encode(), np.uint8), "predictions": {r["hash"]: p for r, p in results}}
    return dump_tree(tree, {"format": FORMAT})


def load(file: Path) -> Shard:
    """Return what a shard holds.

    Raises:
      DamagedError: if its bytes are not those that were written.
      StoreError: if another version of mtl wrote it.
    """
    try:
        tree, about = load_tree(file)
    except CheckpointError as error:
        raise DamagedError(str(error)) from None
    check_format(file, about)
    facts, predictions = tree.get("results"), tree.get("predictions", {})
    if not isinstance(facts, np.ndarray) or facts.dtype != np.uint8 or not isinstance(predictions, dict):
        raise DamagedError(f"{file} holds no results")
    try:
        found = harmless(parse(facts.tobytes()), facts.tobytes())
    except DamagedError as error:
        raise DamagedError(f"{file} {error}") from None
    shard = Shard({}, {}, {})
    for digest, result in found.items():
        try:
            check(result, RESULT)
            check_result(result)
            if result["hash"] != digest:
                raise DamagedError(f"holds trial {result['hash'][:40]!r} in the place of trial {digest[:40]!r}")
            own = predictions.get(digest, {})
            _check_predictions(own, result)
        except DamagedError as error:
            shard.damaged[digest] = f"{file} {error}"
            continue
        shard.results[digest], shard.predictions[digest] = result, own
    return shard


def _check_predictions(found: Any, result: Mapping[str, Any]) -> None:
    """Check that there is a row of numbers, a label and a place in the table an example, of each task that was tested.

    And the number of its group, where there are groups.

    Raises:
      DamagedError: if not; the file is not named.
    """
    if not isinstance(found, dict) or not result.get("test", {}).keys() <= found.keys():
        raise DamagedError(f"holds no predictions of {', '.join(result.get('test', {}))}")
    for task, own in found.items():
        good = isinstance(own, dict) and own.keys() - {GROUPS} == set(NAMES)
        good = good and all(isinstance(a, np.ndarray) and a.dtype.kind in "fiu" for a in own.values())
        good = good and own["outputs"].ndim == 2 and own["outputs"].shape[1] > 0
        good = good and (GROUPS not in own or own[GROUPS].dtype.kind in "iu")
        if not good or any(a.shape != own["outputs"].shape[:1] for name, a in own.items() if name != "outputs"):
            raise DamagedError(f"holds no outputs [n, k], rows [n] and labels [n] (and groups [n]) of {task[:40]!r}")
