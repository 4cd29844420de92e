"""The weights that trials begin from: whether they fit, what they are, and the scaling that they bring."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl.checkpoint import CheckpointError, load_weights, sha256_of
from mtl.config import ConfigError, Trial
from mtl.data import Table
from mtl.data.scaling import Scaling, described
from mtl.inputs import Shape, by_name
from mtl.params import exactly, join
from mtl.sweep.fingerprint import Fingerprint
from mtl.sweep.model_file import read_model
from mtl.train.begin import load, renamed_path
from mtl.train.program import Weights
from mtl.train.trial import shapes

#: (name, inode, time of the last change, size) of a file, or of each file of a directory.
Stamp = tuple[tuple[str, int, int, int], ...]


def _stamp(path: str) -> Stamp:
    """Return what changes when the weights at a path do, as they may while a process lives; cheap to look at."""
    root, found = weights_at(path), []
    for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
        if file.is_file():
            s = file.stat()
            found.append((str(file), s.st_ino, s.st_mtime_ns, s.st_size))
    return tuple(found)


def weights_at(path: str) -> Path:
    """Return the file or directory that is loaded from a path: of a trial's directory, its model alone."""
    model = Path(path) / "model.safetensors"
    return model if model.is_file() else Path(path)


def check_init(trial: Trial, shape: Shape) -> None:
    """Check that the weights that a trial begins from fit its model.

    Raises:
      ConfigError: if not.
    """
    init = trial.config["init"]
    if trial.loads:
        rename = tuple(map(tuple, init["rename"]))
        _checked_init(init["path"], _stamp(init["path"]), tuple(init["fresh"]), rename, trial.model(), shape)


@functools.lru_cache(maxsize=16)
def _checked_init(
    path: str,
    stamp: Stamp,
    fresh: tuple[str, ...],
    rename: tuple[tuple[str, str], ...],
    model: Any,
    shape: Shape,
) -> None:
    try:
        load(shapes(model, shape), *load_weights(path), fresh, rename)
    except CheckpointError as error:
        raise ConfigError(f"config.init.path = {path}: {error}") from None
    except re.error as error:
        raise ConfigError(f"config.init.rename: {error} in a pattern or its replacement") from None
    except ValueError as error:
        raise ConfigError(f"config.init: {path}: {error}") from None


def weights_sha256(path: str) -> str:
    """Return the sha256 of the weights that are now at an ``init.path``; empty for the empty path.

    Raises:
      ConfigError: if there is nothing at that path.
    """
    return _sha256(path, _stamp(path)) if path else ""


@functools.lru_cache(maxsize=16)
def _sha256(path: str, stamp: Stamp) -> str:
    try:
        return sha256_of(weights_at(path))
    except CheckpointError as error:
        raise ConfigError(f"config.init.path = {path}: {error}") from None


#: What inputs must have in common with those that weights were trained on, and what it is called.
_MUST_FIT = {
    "columns": "columns",
    "pixels": "inputs",
    "reading": "reading",
    "shape": "shapes",
    "unit_range": "ranges",
    "vocabulary": "vocabularies",
}


def brought(trial: Trial, table: Table) -> Scaling | None:
    """Return the scaling that the weights bring which a trial begins from; none if it begins at random.

    A trunk goes on seeing what it was trained on, for all phases after. Of a file that is not ours nothing is known.

    Args:
      trial: resolved.
      table: its data.

    Raises:
      ConfigError: for weights that were trained on other inputs than the table's.
    """
    if not trial.loads:
        return None
    known = _known(trial.loads, _stamp(trial.loads))
    if known is None:
        return None
    was, own = known
    now = described(table)
    for what, name in _MUST_FIT.items():
        then, today = was.get(what, 0), now.get(what, 0)
        if then != today:
            raise ConfigError(
                f"config.init.path = {trial.loads}: its weights were trained on other {name} ({_told(then)}) than "
                f"those of {table.name} ({_told(today)}): must be the same"
            )
    for name, old in _loaded_heads(trial, was).items():
        task, known_kind = next(t for t in trial.tasks if t.name == name), was["kinds"][old]
        then, today = was["classes"].get(old), now["classes"].get(name)
        if task.kind != known_kind:
            raise ConfigError(
                f'config.init.path = {trial.loads}: its head "{old}" is of a {known_kind} task, and "{name}" of '
                f'{table.name} is {task.kind}: must be the same, or add "{exactly(join("heads", name))}/.*" to '
                "config.init.fresh"
            )
        if then != today:
            raise ConfigError(
                f'config.init.path = {trial.loads}: its head "{old}" is of the classes {_told(then or ["0, 1, …"])} '
                f"and {table.name} has {_told(today or ['0, 1, …'])}: must be the same, or add "
                f'"{exactly(join("heads", name))}/.*" to config.init.fresh'
            )
    for leaf, gaps in by_name(now["gaps"]).items():
        if unfilled := sorted(set(gaps) - set(by_name(was["gaps"])[leaf])):
            raise ConfigError(
                f"config.init.path = {trial.loads}: {table.column(unfilled[0], leaf)} of {table.name} has missing "
                "inputs, and had none where its weights were trained: must be filled in"
            )
    return own


def _loaded_heads(trial: Trial, was: Mapping[str, Any]) -> dict[str, str]:
    """Return {task: the task of the file whose head it gets}, of the heads that are loaded."""
    rename = tuple(map(tuple, trial.config["init"]["rename"]))
    own = {join("heads", t.name, "kernel"): t.name for t in trial.tasks}
    found = {own.get(renamed_path(join("heads", old, "kernel"), rename), ""): old for old in was["kinds"]}
    fresh = [name for path, name in own.items() if any(re.fullmatch(p, path) for p in trial.config["init"]["fresh"])]
    return {name: old for name, old in found.items() if name and name not in fresh}


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "pixels in [0, 1]" if value else "others"
    if isinstance(value, int):
        return f"{value:,} ids"
    text = ", ".join([f"{k} {v}" for k, v in value.items()] if isinstance(value, dict) else map(str, value))
    return text if len(text) <= 80 else f"{text[:80]}…"


@functools.lru_cache(maxsize=16)
def _known(path: str, stamp: Stamp) -> tuple[Mapping[str, Any], Scaling] | None:
    """Return (what the inputs were and of what kind the tasks with a head are, their scaling) of a model of ours."""
    file = weights_at(path)
    try:
        found = None if file.is_dir() else read_model(file)
    except CheckpointError as error:
        raise ConfigError(f"config.init.path = {path}: {error}") from None
    if found is None:
        return None
    return {**found.inputs, "kinds": {t["name"]: t["kind"] for t in found.config["tasks"]}}, found.scaling


def begin_of(trial: Trial, initial: Weights, scaling: Scaling) -> Weights:
    """Return the weights that a trial begins from; heads of regressions speak in the unit of its own labels.

    A head whose output is f in labels of mean m and spread s says y = m + s f; the same y in the unit (m', s') is
    f' = (s / s') f + (m − m') / s'.

    Args:
      trial: resolved.
      initial: the replicate's initial weights.
      scaling: the trial's own.
    """
    if not trial.loads:
        return initial
    init = trial.config["init"]
    found = load(initial, *load_weights(init["path"]), tuple(init["fresh"]), tuple(map(tuple, init["rename"])))
    known = _known(trial.loads, _stamp(trial.loads))
    heads = dict(found.params["heads"])
    if known is None:
        return found
    was, theirs = known
    for task, old in _loaded_heads(trial, was).items():
        if old not in theirs.units or scaling.units.get(task, theirs.units[old]) == theirs.units[old]:
            continue
        mean, spread = theirs.units[old]
        own_mean, own_spread = scaling.units[task]
        ratio, offset = spread / own_spread, (mean - own_mean) / own_spread
        heads[task] = {"kernel": heads[task]["kernel"] * ratio, "bias": heads[task]["bias"] * ratio + offset}
    return dataclasses.replace(found, params={**found.params, "heads": heads})


def check_weights(trial: Trial, planned: Fingerprint) -> None:
    """Check that a trial's weights are still those that it was planned with.

    Raises:
      ConfigError: if they were changed since: nobody knows which ones the trial began from.
    """
    path = trial.loads
    if weights_sha256(path) != planned.get("init", {}).get("sha256", ""):
        raise ConfigError(
            f"config.init.path = {path}: the weights were changed while trials began from them: run again, and leave "
            "them as they are until it is done"
        )
