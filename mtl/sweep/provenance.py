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


def _cpu(file: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name, as its maker writes it, with its generation; empty where the system does not tell.

    Several generations share a name ("AMD EPYC"), and one without the vectors of another gives other bits.
    """
    lines = file.read_text("utf-8", "replace").splitlines() if file.is_file() else []
    told = {key.strip(): text.strip() for key, _, text in (line.partition(":") for line in reversed(lines))}
    if "model name" not in told:
        return platform.processor()
    generation = ", ".join(f"{key} {told[key]}" for key in ("cpu family", "model") if key in told)
    return told["model name"] + (f" ({generation.removeprefix('cpu ')})" if generation else "")
