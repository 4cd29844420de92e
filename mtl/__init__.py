"""Should you transfer or train jointly, and how sure can you be?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["advised", "compare", "load", "results", "run", "run_sweep"]

if TYPE_CHECKING:
    from mtl.commands.compare import compare
    from mtl.commands.run import run, run_sweep
    from mtl.report.advised import advised
    from mtl.sweep.frames import results
    from mtl.sweep.trained import load


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: ``import mtl`` alone must not start JAX."""
    rooms = {
        "advised": "report.advised",
        "compare": "commands.compare",
        "load": "sweep.trained",
        "results": "sweep.frames",
        "run": "commands.run",
        "run_sweep": "commands.run",
    }
    if name not in rooms:
        raise AttributeError(f"module mtl has no attribute {name}")
    return getattr(importlib.import_module(f"mtl.{rooms[name]}"), name)
