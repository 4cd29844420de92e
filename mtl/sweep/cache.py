"""The compilation cache: programs compiled once for a user, not once for a process."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from mtl.train import compiled

#: Environment variable that names another directory, or ``off``.
VARIABLE = "MTL_CACHE_DIR"


def cache_folder() -> Path | None:
    """Return the cache's directory, or nothing if it is off.

    It is the user's own, readable and writable by nobody else, and never in a work directory, which may be shared.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen == "off":
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else home / "mtl" / "xla"


def enable_cache() -> Path | None:
    """Turn on XLA's persistent cache, machine code that is executed as it is; return its directory if it is not off."""
    path = cache_folder()
    if path is None:
        compiled.turns = None
        return None
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if os.name == "posix":  # Elsewhere there are no locks of this kind, and processes do not take turns.
        compiled.turns = path / "turns"
        compiled.turns.mkdir(exist_ok=True, mode=0o700)
    return path
