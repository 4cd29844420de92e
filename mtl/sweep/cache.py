"""The compilation cache: programs compiled once for a user, not once for a process."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from pathlib import Path

import mtl
from mtl.host.files import FileError, write_atomically

#: Environment variable that names another directory, or ``off``.
VARIABLE = "MTL_CACHE_DIR"


def cache_folder() -> Path | None:
    """Return the cache's directory, or nothing if it is off, or the user has no home.

    It is the user's own, readable and writable by nobody else, and never in a work directory, which may be shared.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen:
        return None if chosen == "off" else Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtl" / "xla"
    except RuntimeError:
        return None


@functools.cache
def version() -> str:
    """Return the sha256 of this package's source: what is kept of a computation is of no use to another version."""
    package, digest = Path(mtl.__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def keep(path: Path, content: bytes) -> None:
    """Write a file of the cache; one that cannot be written costs time, no result."""
    with contextlib.suppress(FileError, OSError):
        path.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, content, durable=False)


def make_cache() -> str:
    """Make the cache's directory if it is not there, and return why that cannot be, in a sentence; else nothing."""
    path = cache_folder()
    try:
        if path is not None:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(0o700)
            (path / "turns").mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        why = error.strerror or error
        return f"what is compiled is not kept: {path} cannot be written ({why}); {VARIABLE} names another directory"
    return ""


def enable_cache() -> Path | None:
    """Turn on XLA's persistent cache, machine code that is executed as it is, and return its directory.

    Nothing if it is off or cannot be written: programs are then compiled anew, which costs time and no result.
    """
    import jax  # Here, as who reads results needs the folder alone.

    from mtl.train import compiled

    path = cache_folder()
    if path is None or make_cache():
        compiled.turns = None
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # Where there are no locks of POSIX's kind, processes do not take turns.
    compiled.turns = path / "turns" if os.name == "posix" else None
    return path
