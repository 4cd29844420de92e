"""What a fault came to."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass
class Outcome:
    """What a fault came to.

    Attributes:
      fault: its name.
      holds: what must hold.
      runs: how often it was tried.
      broken: what did not hold, one sentence each.
      figures: what was counted and measured.
    """

    fault: str
    holds: str
    runs: int = 0
    broken: list[str] = dataclasses.field(default_factory=list)
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)

    def expect(self, truth: object, sentence: str) -> None:
        """Note a sentence unless what it denies is true."""
        if not truth:
            self.broken.append(sentence)

    def count(self, name: str, number: int = 1) -> None:
        """Count something."""
        self.figures[name] = self.figures.get(name, 0) + number

    def most(self, name: str, value: float) -> None:
        """Keep the largest value."""
        self.figures[name] = round(max(self.figures.get(name, 0.0), value), 2)
