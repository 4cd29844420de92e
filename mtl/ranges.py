"""The range of a number, as an annotation holds it: ``Annotated[float, Range(0, 1)]``."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated


@dataclasses.dataclass(frozen=True)
class Range:
    """What a number may be.

    Attributes:
      low, high: the least and the largest.
      open_low, open_high: whether that itself is left out.

    >>> Range(0, 1, open_high=True).holds(1.0), str(Range(0, 1, open_high=True)), str(Range(1)), str(Range(1, 9))
    (False, 'in [0, 1)', 'at least 1', 'from 1 to 9')
    """

    low: int | float = -math.inf
    high: int | float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: int | float) -> bool:
        """Return whether a number lies in the range; NaN lies in none."""
        above = self.low < value if self.open_low else self.low <= value
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        """Return the end of a sentence that begins with "must be a number"."""
        low, high = (str(n) if isinstance(n, int) else f"{n:g}" for n in (self.low, self.high))
        if self.high == math.inf:
            return f"above {low}" if self.open_low else f"at least {low}"
        if self.low == -math.inf:
            return f"below {high}" if self.open_high else f"at most {high}"
        if self.open_low or self.open_high:
            return f"in {'(' if self.open_low else '['}{low}, {high}{')' if self.open_high else ']'}"
        return f"from {low} to {high}"


def finite(value: object) -> bool:
    """Return whether a value is a finite number; True and False are none.

    >>> finite(2), finite(True), finite(math.nan), finite("2")
    (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


#: What is counted, and there must be one at least.
Count = Annotated[int, Range(1)]
#: What is counted, and there may be none.
CountOrNone = Annotated[int, Range(0)]
#: A share of a whole, or a probability.
Share = Annotated[float, Range(0, 1)]
#: The probability of dropping an activation: of all of them nothing would be left.
Dropout = Annotated[float, Range(0, 1, open_high=True)]
#: A size of any kind that cannot be nothing.
Positive = Annotated[float, Range(0, open_low=True)]
#: A size of any kind that can be nothing.
NotNegative = Annotated[float, Range(0)]
