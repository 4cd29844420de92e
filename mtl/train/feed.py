"""Where a pack's steps get their data from: all of it in memory, or windows of a stream (``train.stream``)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from mtl.train import pack
from mtl.train.compiled import Compiled
from mtl.train.dataset import Data
from mtl.train.judge import Judgement
from mtl.train.placement import LANES, WHOLE, Placement, PyTree, place
from mtl.train.program import Frozen, Hypers, Program, Weights


@dataclasses.dataclass(frozen=True)
class Window:
    """What steps can be run with at once.

    Attributes:
      lanes: the pack's numbers.
      data: the data; with a window of a stream, (data, (x, place)), see ``pack.at_hand``.
      end: the step that they do not reach any more.
    """

    lanes: Hypers
    data: PyTree
    end: int


@dataclasses.dataclass
class Feed:
    """What gives a pack its data; here all of them are in memory.

    Attributes:
      program: the phase.
      steps: how many it has.
      count: lanes that are real; the others are copies of the last.
      host: the pack's numbers, as NumPy's.
      data: the stacked data.
      placement: how the pack runs.
      waited: seconds that steps had to wait for inputs.
    """

    program: Program
    steps: int
    count: Any
    host: Hypers
    data: Data
    placement: Placement
    waited: float = dataclasses.field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Place what there is."""
        self.count, self.data = place(self.placement, (np.int32(self.count), self.data), WHOLE)
        self.lanes = place(self.placement, self.host, LANES)

    def advance(self) -> Compiled:
        """Return the compiled function that its reaches are for."""
        return pack.advance_fn(self.program, self.placement)

    def shapes(self) -> Window:
        """Return a reach of no step, to compile with."""
        return self.at(0)

    def begin(self, step: int) -> None:
        """Make ready to go on from a step."""

    def at(self, step: int) -> Window:
        """Return what to run a step with, and those after it."""
        return Window(self.lanes, self.data, self.steps)

    def fix(self, weights: Weights, frozen: PyTree) -> Frozen:
        """Return what does not change while the phase runs."""
        run = pack.fix_fn(self.program, self.placement)
        return run(self.count, self.lanes.split, weights, frozen, self.data)

    def evaluate(self, weights: Weights) -> Judgement:
        """Return what validation says of the lanes' states."""
        p = self.program
        run = pack.evaluate_fn(p.model, p.tasks, p.standardize, self.placement)
        found: Judgement = run(self.count, self.lanes.split, weights, self.data)
        return found

    def close(self) -> None:
        """Stop reading."""
