"""Weights on disk: safetensors of our own, and what can be loaded to begin from (safetensors or Orbax)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mtl import params as paths

PyTree = Any


class CheckpointError(ValueError):
    """A file of weights that cannot be read, or does not hold what it should: one sentence that names it."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all: to a name of its own, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def save_tree(path: Path, tree: PyTree, about: Mapping[str, Any]) -> None:
    """Write a tree of arrays, with facts about it, as one safetensors file; atomically.

    Args:
      path: where to.
      tree: nested dictionaries of arrays.
      about: JSON-able facts, kept in the file's header.
    """
    flat = {k: np.asarray(v, order="C") for k, v in paths.flatten(tree).items()}  # `ascontiguousarray` has no scalars.
    write_atomically(path, save(flat, metadata={"mtl": json.dumps(about, sort_keys=True)}))


def load_about(path: Path) -> dict[str, Any]:
    """Return the facts in a safetensors file's header; its arrays are not read.

    Raises:
      CheckpointError: if the file is missing, damaged, or not safetensors.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(json.loads((file.metadata() or {}).get("mtl", "{}")))
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from None


def load_tree(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (tree of NumPy arrays, facts) of a safetensors file.

    Raises:
      CheckpointError: if the file is missing, damaged, or not safetensors.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("mtl", "{}"))
            if not isinstance(about, dict):
                raise ValueError(f"its facts are {about!r}, not an object")
            return paths.unflatten({key: _tensor(file, key) for key in file.keys()}), about  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from None


def _tensor(file: Any, key: str) -> np.ndarray:
    try:
        return file.get_tensor(key)
    except (AttributeError, TypeError):  # As safetensors says it: module 'numpy' has no attribute 'float8_e4m3fn'.
        kind = file.get_slice(key).get_dtype()
        raise ValueError(f"{key} is of type {kind}, which NumPy does not have: convert it to float32") from None


def load_params(path: str | Path) -> dict[str, Any]:
    """Return the parameters to begin from; as ``load_weights``, without batch statistics."""
    return load_weights(path)[0]


def load_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (parameters, batch statistics) to begin from: of a ``.safetensors`` file, a trial or an Orbax checkpoint.

    A file of ours holds ``params/…`` and ``state/…``; any other safetensors file is taken as parameters as it is, and
    then there are no statistics.

    Raises:
      CheckpointError: if there is nothing there that can be read.
    """
    path = Path(path)
    if path.is_dir() and (path / "model.safetensors").is_file():
        path = path / "model.safetensors"
    if path.is_dir():
        return _load_orbax(path)
    return _parts(load_tree(path)[0])


def _parts(tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return (tree["params"], tree.get("state", {})) if "params" in tree else (tree, {})


def _load_orbax(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    import orbax.checkpoint as ocp  # slow to import, and seldom needed

    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore(path.absolute())
    except (ValueError, FileNotFoundError, KeyError, OSError) as error:
        # A directory that Orbax's CheckpointManager keeps holds a checkpoint a step and item: STEP/default.
        inside = [file.parent for file in (*path.glob("*/_METADATA"), *path.glob("*/*/_METADATA"))]
        if inside:
            last = max(inside, key=lambda p: [(part.isdigit(), int(part) if part.isdigit() else 0) for part in p.parts])
            raise CheckpointError(f"{path} is a directory of Orbax checkpoints: name one, as {last}") from None
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} holds no model.safetensors and is no Orbax checkpoint: {first}") from None
    return _parts(paths.unflatten({k: np.asarray(v) for k, v in paths.flatten(tree).items()}))


def sha256_of(path: str | Path) -> str:
    """Return the sha256 of a file, or of a directory's files and their names.

    Raises:
      CheckpointError: if there is nothing at that path.
    """
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_file():
        digest.update(path.read_bytes())
    elif path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(str(file.relative_to(path)).encode() + b"\0" + file.read_bytes())
    else:
        raise CheckpointError(f"there is no file or directory {path}")
    return digest.hexdigest()
