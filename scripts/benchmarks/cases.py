"""The cases that are timed: shapes alone, so that both sides build the same and neither needs the other's library."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Case:
    """A model on data of some shape.

    Attributes:
      backbone, options: the model, as in a config of ours.
      shape: of one input.
      batch: rows of a step.
      rows: rows that are drawn from.
      binary: number of binary tasks with missing labels; 0: one task of eight classes.
      spread: whether ours, where it has several cores, spreads each batch over them (``--mesh=data:N``).
      seconds: that a round takes, about.
    """

    backbone: str
    options: dict[str, Any]
    shape: tuple[int, ...]
    batch: int
    rows: int
    binary: int = 0
    spread: bool = False
    seconds: float = 0.4

    @property
    def outputs(self) -> int:
        """Numbers that the heads give for a row."""
        return self.binary or CLASSES


CLASSES = 8
#: Share of the labels of binary tasks that are missing.
MISSING = 0.3

CASES = {
    "mlp": Case("mlp", {"hidden": (128, 128)}, (64,), 32, 4096, binary=10),
    # As many tasks as ToxCast has: with a trunk's FLOPs for ten, their heads are most of the work.
    "mlp617": Case("mlp", {"hidden": (128, 128)}, (64,), 32, 4096, binary=617),
    "cnn": Case("cnn", {"channels": (16, 32), "features": 64, "norm": "none"}, (28, 28, 1), 128, 4096, spread=True),
    "foreign": Case("foreign", {"channels": (16, 32), "features": 64}, (28, 28, 1), 128, 4096),
    # As the engine calls them: several steps in up to two seconds.
    "resnet": Case("resnet", {}, (32, 32, 3), 64, 512, seconds=2.0),
    "vit": Case("vit", {}, (32, 32, 3), 64, 512, spread=True, seconds=2.0),
    "lite": Case("efficientnet_lite", {}, (64, 64, 3), 32, 256),
    # Not timed: they compile in seconds.
    "small_resnet": Case("resnet", {"width": 8}, (16, 16, 3), 8, 256),
    "small_vit": Case("vit", {"width": 32, "depth": 2, "heads": 2}, (16, 16, 3), 8, 256),
}


def inputs(case: Case, rows: int) -> np.ndarray:
    """Return inputs, [rows, …]."""
    return np.random.default_rng(0).standard_normal((rows, *case.shape)).astype(np.float32)


def labels(case: Case, rows: int, missing: float = MISSING) -> np.ndarray:
    """Return labels: of binary tasks float32 [rows, tasks], NaN where missing; otherwise class ids [rows]."""
    rng = np.random.default_rng(1)
    if not case.binary:
        return rng.integers(0, CLASSES, rows).astype(np.int32)
    found = rng.integers(0, 2, (rows, case.binary)).astype(np.float32)
    return np.where(rng.random(found.shape) < missing, np.float32(np.nan), found)
