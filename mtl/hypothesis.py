"""What a study states before anything runs: that the contrast of two regimes lies somewhere, and what refutes that."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

#: What refutes it: where an end of the contrast's interval lies, or that it ties (all of it within ± margin), or
#: differs (none of it is).
Falsifier = Literal[
    "upper <= margin", "upper <= 0", "upper <= -margin", "lower >= margin", "lower >= 0", "lower >= -margin",
    "ties", "differs",
]  # fmt: skip

#: Where it says that the contrast lies, in margins; of ``ties`` it is outside.
REGIONS: dict[str, tuple[float, float]] = {
    "upper <= margin": (1, math.inf),
    "upper <= 0": (0, math.inf),
    "upper <= -margin": (-1, math.inf),
    "lower >= margin": (-math.inf, 1),
    "lower >= 0": (-math.inf, 0),
    "lower >= -margin": (-math.inf, -1),
    "ties": (-1, 1),
    "differs": (-1, 1),
}


_NUMBER = re.compile(r" *[0-9]{1,15}(\.[0-9]{1,15})? *")


class Hypothesis(NamedTuple):
    """What a study states.

    Attributes:
      first, second: the regimes whose contrast it is about: by how much the first is better.
      sizes: the columns of the table at which it is, such as target sizes; empty for all of the sweep's.
      falsifier: what refutes it.
      late: whether it was stated, or changed, when results were there.
    """

    first: str
    second: str
    sizes: tuple[float, ...]
    falsifier: str
    late: bool = False


def hypothesis_of(flat: Mapping[str, Any]) -> Hypothesis | None:
    """Return what a study states; nothing if it states no contrast.

    Args:
      flat: the config's fields.

    Raises:
      ValueError: for a contrast that cannot be read.

    >>> hypothesis_of({"report.contrast": "multitask - scratch @ 20, 100", "report.falsifier": "upper <= margin"})
    Hypothesis(first='multitask', second='scratch', sizes=(20.0, 100.0), falsifier='upper <= margin', late=False)
    """
    text = flat.get("report.contrast", "")
    if not text:
        return None
    pair, at, sizes = text.partition(" @ ")
    first, *others = (name.strip() for name in pair.split(" - "))
    numbers = sizes.split(",") if at else []
    read = first and len(others) == 1 and others[0] not in ("", first)
    if not read or not all(map(_NUMBER.fullmatch, numbers)):
        raise ValueError(f'report.contrast = "{text}": must be "REGIME - REGIME", or "REGIME - REGIME @ 20, 100"')
    return Hypothesis(first, others[0], tuple(sorted(set(map(float, numbers)))), flat["report.falsifier"])
