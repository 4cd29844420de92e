"""Weights on disk: safetensors of our own, and what can be loaded to begin from (safetensors or Orbax)."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mtl.host.files import is_of_a_system, open_plain, parse, sha256_of_file, write_atomically
from mtl.paths import unflatten

PyTree = Any


class CheckpointError(ValueError):
    """A file of weights that cannot be read, or does not hold what it should: one sentence that names it."""


#: The longest header that is read; that of a model with ten thousand arrays takes about 1 MiB.
MAX_HEADER_BYTES = 16 * 2**20
#: The most parts of an array's name, ``a/b/c``: each is a dictionary in a dictionary.
MAX_DEPTH = 64
#: What a file of ours begins with, after the length of its header; the digest follows.
_SEAL = b'{"__metadata__":{"mtl":"{\\"sha256\\": \\"'
_UNSEALED = b"0" * 64


def dump_tree(tree: PyTree, about: Mapping[str, Any]) -> bytes:
    """Return a tree of arrays, with facts about it, as one safetensors file that holds its own sha256.

    The digest is that of the whole file, with zeros in place of the digest itself: it covers numbers, names, shapes
    and facts.

    Args:
      tree: nested dictionaries of arrays.
      about: JSON-able facts, kept in the file's header.
    """
    from mtl.params import flatten  # Here, as JAX is imported with it, which who only reads does not need.

    return dump_arrays(flatten(tree), about)


def dump_arrays(arrays: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    """Return arrays by path as ``dump_tree`` does a tree of them."""
    flat = {k: np.asarray(v, order="C") for k, v in arrays.items()}  # `ascontiguousarray` has no scalars.
    rest = json.dumps(about, sort_keys=True)[1:]
    facts = f'{{"sha256": "{_UNSEALED.decode()}"{", " if about else ""}{rest}'
    content = save(flat, metadata={"mtl": facts})
    assert content[8:].startswith(_SEAL + _UNSEALED), "safetensors writes its header in another order"
    begin = 8 + len(_SEAL)
    digest = hashlib.sha256(content).hexdigest().encode()
    return b"".join((content[:begin], digest, memoryview(content)[begin + 64 :]))  # A view: one copy, not two.


def save_tree(path: Path, tree: PyTree, about: Mapping[str, Any]) -> None:
    """Write a tree of arrays, with facts about it, as one safetensors file; atomically. See ``dump_tree``.

    Raises:
      FileError: if it cannot be written.
    """
    write_atomically(path, dump_tree(tree, about))


def load_tree(path: Path, only: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (tree of NumPy arrays, facts) of a safetensors file; one of ours is verified.

    Args:
      path: the file.
      only: the tree's branch that is read; all by default. All of the file is verified.

    Raises:
      CheckpointError: if the file is missing, damaged, or not safetensors.
    """
    try:
        about = _facts(path)
        with safe_open(path, framework="numpy") as file:
            keys = [key for key in file.keys() if not only or key.partition("/")[0] == only]  # noqa: SIM118
            return unflatten({key: _tensor(file, key) for key in keys}), about
    except OSError as error:
        raise _unreadable(path, error) from error
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from None


def seal_of(path: Path) -> str:
    """Return the sha256 that a file of ours says it has, which is not verified; empty if it says none.

    Raises:
      OSError: if it cannot be read.
    """
    with open_plain(path) as file:
        begin, seal = file.read(8 + len(_SEAL))[8:], file.read(64)
    return seal.decode("ascii") if begin == _SEAL and re.fullmatch(b"[0-9a-f]{64}", seal) else ""


def load_about(path: Path) -> dict[str, Any]:
    """Return the facts in a safetensors file's header; one of ours is verified, all of it.

    Raises:
      CheckpointError: if the file is missing, damaged, or not safetensors.
    """
    try:
        return _facts(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from None


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    """Return the error of a file that may be whole, but cannot be read now; its cause tells it from a damaged one."""
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"there is no file {path}")
    return CheckpointError(f"{path} is not a readable safetensors file: {error}")


def _facts(path: Path) -> dict[str, Any]:
    """Return the facts of a file whose header is within bounds and whose digest, if it has one, is right."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if length > MAX_HEADER_BYTES or 8 + length > size:
            raise ValueError(f"its header would be {length:,} bytes long; the file has {size:,}")
        header = file.read(length)
        sealed = header.startswith(_SEAL)
        if sealed:
            begin = len(_SEAL)
            digest = hashlib.sha256(start + header[:begin] + _UNSEALED + header[begin + 64 :])
            while chunk := file.read(2**20):
                digest.update(chunk)
            if digest.hexdigest().encode() != header[begin : begin + 64]:
                raise ValueError("it is damaged: its sha256 is not the one it was written with")
    names = parse(header)
    if deep := [name for name in names if name.count("/") >= MAX_DEPTH]:
        raise ValueError(f"{deep[0][:40]!r}… is the name of an array of more than {MAX_DEPTH} parts")
    metadata = names.get("__metadata__", {})
    about = parse(str(metadata.get("mtl", "{}")).encode()) if isinstance(metadata, dict) else {}
    about.pop("sha256", None)
    if not sealed and about.get("format", 1) != 1:
        raise ValueError("it is damaged: it has lost its sha256")
    return about


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
      CheckpointError: if there is nothing there that can be read, or no parameters are.
    """
    path = Path(path)
    if path.is_dir() and (path / "model.safetensors").is_file():
        path = path / "model.safetensors"
    params, state = _load_orbax(path) if path.is_dir() else _parts(load_tree(path)[0])
    if not params:
        raise CheckpointError(f"{path} holds no parameters: there is nothing to begin from")
    return params, state


def _parts(tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return (tree["params"], tree.get("state", {})) if "params" in tree else (tree, {})


def _load_orbax(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    for file in path.rglob("*"):
        if file.exists() and not file.is_file() and not file.is_dir():
            raise CheckpointError(f"{file} is a pipe or a device: an Orbax checkpoint holds files and directories")
    import orbax.checkpoint as ocp  # slow to import, and seldom needed

    from mtl.params import flatten

    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore(path.absolute())
    except Exception as error:  # noqa: BLE001 — of a damaged checkpoint Orbax raises whatever its parsers do
        # A directory that Orbax's CheckpointManager keeps holds a checkpoint a step and item: STEP/default.
        inside = [file.parent for file in (*path.glob("*/_METADATA"), *path.glob("*/*/_METADATA"))]
        if inside:
            last = max(inside, key=lambda p: [(part.isdigit(), int(part) if part.isdigit() else 0) for part in p.parts])
            raise CheckpointError(f"{path} is a directory of Orbax checkpoints: name one, as {last}") from None
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} holds no model.safetensors and is no Orbax checkpoint: {first}") from None
    return _parts(unflatten({k: np.asarray(v) for k, v in flatten(tree).items()}))


def sha256_of(path: str | Path) -> str:
    """Return the sha256 of a file, or of a directory's files and their names.

    Raises:
      CheckpointError: if there is nothing at that path.
    """
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_file():
        return sha256_of_file(path)
    elif path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            if any(map(is_of_a_system, file.relative_to(path).parts)):
                continue
            digest.update(str(file.relative_to(path)).encode() + b"\0")
            with open_plain(file) as opened:
                while chunk := opened.read(2**20):
                    digest.update(chunk)
    else:
        raise CheckpointError(f"there is no file or directory {path}")
    return digest.hexdigest()
