"""One side of a comparison: what is timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Side:
    """What is timed.

    Attributes:
      run: does so many units of work, to the end.
      about: JSON-able facts of it.
    """

    run: Callable[[int], None]
    about: dict[str, Any]
