"""Analyses that are kept in the user's cache, by all that they were made from: a table is then printed at once."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mtl.checkpoint import CheckpointError, dump_arrays, load_tree
from mtl.config import canonical
from mtl.host.files import sha256_of_file
from mtl.regimes import REGIMES
from mtl.report.analysis import Sizes
from mtl.sweep.cache import cache_folder, keep, version
from mtl.sweep.store import Workdir

#: So many are kept, those that were made last.
_MOST = 32


def state_of(workdir: Workdir) -> str:
    """Return the sha256 of all that the analyses of a work directory are made from: each byte of results, and the code.

    Args:
      workdir: the work directory. Where a file of it cannot be read, which its reader says, the state is empty.
    """
    files = [workdir.study_file, *workdir.inside("results").glob("*"), *workdir.inside("trials").glob("*/failed.json")]
    try:
        content = {f.relative_to(workdir.path).as_posix(): sha256_of_file(f) for f in files if f.is_file()}
    except OSError:
        return ""
    versions = [version(), *map(metadata.version, ("numpy", "scipy"))]
    # A config file may have registered regimes, which are at hand in its own process only.
    return hashlib.sha256(canonical([versions, list(REGIMES), content]).encode()).hexdigest()


def recall(state: str, sweep: str) -> Any | None:
    """Return what was kept of a sweep in a state; nothing if there is nothing, or it is damaged."""
    file = _file(state, sweep)
    if file is not None and file.is_file():
        with contextlib.suppress(CheckpointError):
            arrays, _ = load_tree(file)
            return _decoded(json.loads(arrays["value"].tobytes()), arrays)
    return None


def remember(state: str, sweep: str, value: Any) -> None:
    """Keep what a sweep came to in a state: of dataclasses, named tuples, arrays and what JSON has."""
    file = _file(state, sweep)
    if file is None:
        return
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_encoded(value, arrays)).encode()
    keep(file, dump_arrays(arrays | {"value": np.frombuffer(text, np.uint8)}, {}))
    with contextlib.suppress(OSError):  # Another process may tidy at the same time.
        made = sorted(file.parent.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        for old in made[:-_MOST]:
            old.unlink(missing_ok=True)


def _file(state: str, sweep: str) -> Path | None:
    folder = cache_folder()
    name = hashlib.sha256(f"{state} {sweep}".encode()).hexdigest()
    return None if folder is None or not state else folder / "analyses" / f"{name}.safetensors"


def _encoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return a value as JSON in which each object is ``[kind, parts]``, and put its arrays into ``arrays``."""
    if isinstance(value, np.ndarray):
        arrays[name := f"array_{len(arrays)}"] = value
        return ["array", name]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Sizes):
        return ["sizes", [value.field, list(value)]]
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        names = value._fields if hasattr(value, "_fields") else [field.name for field in dataclasses.fields(value)]
        kind = type(value)
        return [f"{kind.__module__}:{kind.__name__}", {n: _encoded(getattr(value, n), arrays) for n in names}]
    if isinstance(value, dict):  # Its keys may be numbers.
        return ["dict", [[_encoded(k, arrays), _encoded(v, arrays)] for k, v in value.items()]]
    if isinstance(value, (tuple, list)):
        return [type(value).__name__, [_encoded(v, arrays) for v in value]]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be kept")


def _decoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Undo ``_encoded``."""
    if not isinstance(value, list):
        return value
    kind, parts = value
    if kind == "array":
        return arrays[parts]
    if kind == "sizes":
        return Sizes.of(*parts)
    if kind == "dict":
        return {_decoded(k, arrays): _decoded(v, arrays) for k, v in parts}
    if kind in ("tuple", "list"):
        return (tuple if kind == "tuple" else list)(_decoded(v, arrays) for v in parts)
    module, _, name = kind.partition(":")
    # A file could name any function: only what holds numbers, and of our own, is made from it.
    made = getattr(importlib.import_module(module), name, None) if module.startswith("mtl.") else None
    if not (isinstance(made, type) and (dataclasses.is_dataclass(made) or hasattr(made, "_fields"))):
        raise CheckpointError(f"{kind} is not what an analysis is made of")
    return made(**{n: _decoded(v, arrays) for n, v in parts.items()})
