"""What a page shows of a sweep beside its analysis: data, regimes, learning curves, other metrics, calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mtl.report.formats import Table


@dataclasses.dataclass(frozen=True)
class Supplement:
    """Beside an analysis; all of it may be missing.

    Attributes:
      data: a sentence on the data set.
      data_table: its tasks.
      data_warnings: sentences on what of it weakens an answer.
      regimes: a line on each.
      curves: the figure of learning curves.
      calibration: the figure of reliability diagrams.
      others: the table of other metrics.
    """

    data: str = ""
    data_table: Table | None = None
    data_warnings: Sequence[str] = ()
    regimes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    curves: Any | None = None
    calibration: Any | None = None
    others: Table | None = None
