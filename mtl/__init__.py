"""Should you transfer or train jointly, and how sure can you be?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["load", "results"]

if TYPE_CHECKING:
    from mtl.sweep.frames import results
    from mtl.sweep.trained import load


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: ``import mtl`` alone must not start JAX."""
    if name == "results":
        from mtl.sweep.frames import results

        return results
    if name == "load":
        from mtl.sweep.trained import load

        return load
    raise AttributeError(f"module mtl has no attribute {name}")
