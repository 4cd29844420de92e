"""By what a trial was trained: versions, processor, device. They are told where they differ, and make nothing stale."""

from __future__ import annotations

import functools
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import mtl

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")


@functools.cache
def provenance() -> dict[str, Any]:
    """Return what a result says of this process; the same packages give the same bits only on the same machine."""
    packages = {name: metadata.version(name) for name in _PACKAGES}
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "cpu": _cpu(),
        "versions": {"mtl": mtl.__version__, "python": platform.python_version(), **packages},
    }


def _cpu() -> str:
    """Return the processor's name, as its maker writes it; empty where the system does not tell."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text("utf-8", "replace").splitlines() if file.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
