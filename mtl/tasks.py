"""What a task is: one thing to predict, with its kind, its loss's options and its metric."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Literal

Kind = Literal["binary", "multiclass", "regression"]

#: Metrics a task of each kind can have; the first is its default. ``mtl.metrics.register`` adds to them.
METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("accuracy", "auroc", "average_precision", "f1", "log_loss", "brier", "ece"),
    "multiclass": ("accuracy", "f1", "log_loss", "brier", "ece"),
    "regression": ("r2", "squared_error"),
}

#: Losses a task of each kind can have; the first is its default. ``mtl.losses.register`` adds to them.
LOSSES: dict[str, tuple[str, ...]] = {"binary": ("logistic",), "multiclass": ("softmax",), "regression": ("squared",)}


def suggest(name: str, valid: Iterable[str]) -> str:
    """Return the end of an error sentence: the nearest valid name, and all of them.

    >>> suggest("finetun", ["finetune", "scratch"])
    'did you mean "finetune"? Valid: finetune, scratch'
    >>> suggest("ln", ["lr", "loss"])
    'did you mean "lr"? Valid: loss, lr'
    """
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1)
    # Of a name of two or three letters one mistake leaves half.
    near = near or difflib.get_close_matches(name, [n for n in names if len(n) <= 3], n=1, cutoff=0.5)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return f"{hint}Valid: {', '.join(names)}"


@dataclasses.dataclass(frozen=True)
class Task:
    """One thing to predict.

    A ``binary`` task has one logit and labels in {0, 1}; a ``multiclass`` task has ``num_classes`` logits and
    class ids; a ``regression`` task has one output and real labels. A missing label is NaN (floats) or −1
    (class ids) where data enter, and a mask from there on.

    Args:
      name: the task's name, the key of its head in ``params["heads"]``.
      kind: ``binary``, ``multiclass`` or ``regression``.
      num_classes: number of classes of a ``multiclass`` task, at least 2; 0 for the other kinds.
      metric: the metric reported for it; empty for the kind's default (see ``METRICS``).
      weight: what this task's loss is multiplied by in a sum over tasks.
      pos_weight: what the loss of a positive label is multiplied by (``binary`` only).
      label_smoothing: ε in [0, 1): the target moves towards the uniform distribution by ε.
      focal_gamma: γ ≥ 0 of the focal loss, (1 − p_true)^γ times the loss (Lin et al. 2017, arXiv:1708.02002).
      loss: its loss; empty for the kind's default (see ``LOSSES``), the only one that takes the three options above.

    Raises:
      ValueError: for an empty name, a kind, metric or loss that does not exist, one that the kind cannot have, or an
        option that the kind or the loss does not take.

    >>> Task("pedestrian", "binary").outputs
    1
    >>> Task("digit", "multiclass", num_classes=10).metric
    'accuracy'
    """

    name: str
    kind: Kind
    num_classes: int = 0
    metric: str = ""
    weight: float = 1.0
    pos_weight: float = 1.0
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    loss: str = ""

    def __post_init__(self) -> None:
        """Fill in the default metric and refuse what cannot be."""
        if not self.name:
            raise ValueError('task "": name: must not be empty')
        if self.kind not in METRICS:
            raise ValueError(f'task "{self.name}": kind "{self.kind}": {suggest(str(self.kind), METRICS)}')
        if self.kind == "multiclass" and self.num_classes < 2:
            raise ValueError(f'task "{self.name}": num_classes = {self.num_classes}: must be at least 2')
        if self.kind != "multiclass" and self.num_classes != 0:
            raise ValueError(f'task "{self.name}": num_classes = {self.num_classes}: must be 0 for {self.kind}')
        if not self.metric:
            object.__setattr__(self, "metric", METRICS[self.kind][0])
        if self.metric not in METRICS[self.kind]:
            raise ValueError(
                f'task "{self.name}": a {self.kind} task cannot have metric "{self.metric}": '
                + suggest(self.metric, METRICS[self.kind])
            )
        if self.loss and self.loss not in LOSSES[self.kind]:
            raise ValueError(
                f'task "{self.name}": a {self.kind} task cannot have loss "{self.loss}": '
                + suggest(self.loss, LOSSES[self.kind])
            )
        for field, low, high in (
            ("weight", 0.0, math.inf),
            ("pos_weight", 0.0, math.inf),
            ("label_smoothing", 0.0, 1.0),
            ("focal_gamma", 0.0, math.inf),
        ):
            value = getattr(self, field)
            if not (low <= value < high):
                raise ValueError(f'task "{self.name}": {field} = {value}: must be in [{low:g}, {high:g})')
        if self.pos_weight != 1.0 and self.kind != "binary":
            raise ValueError(f'task "{self.name}": pos_weight is for binary tasks, not {self.kind}')
        if self.kind == "regression" and (self.label_smoothing or self.focal_gamma):
            raise ValueError(f'task "{self.name}": label_smoothing and focal_gamma are not for regression')

        options = {"pos_weight": 1.0, "label_smoothing": 0.0, "focal_gamma": 0.0}
        set_ones = [name for name, off in options.items() if getattr(self, name) != off]
        if self.loss not in ("", LOSSES[self.kind][0]) and set_ones:
            raise ValueError(
                f'task "{self.name}": {set_ones[0]} is for the loss "{LOSSES[self.kind][0]}", not "{self.loss}"'
            )

    @property
    def outputs(self) -> int:
        """Number of outputs of the task's head."""
        return self.num_classes if self.kind == "multiclass" else 1

    @property
    def label_dtype(self) -> str:
        """``int32`` for class ids, ``float32`` for 0 and 1, ``float64`` for numbers (scaled before any cast)."""
        return {"binary": "float32", "multiclass": "int32", "regression": "float64"}[self.kind]
