"""What a task is: one thing to predict, with its kind, its loss's options and its metric."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the tasks of one kind have in common.

    Attributes:
      labels: what a label is: ``binary`` (0 or 1), ``ids`` (of classes, from 0) or ``numbers``.
      outputs: of a head: how many; 0 for one a class.
      metrics: those that its tasks can have; the first is the default. ``mtl.metrics.register`` adds to them.
      losses: likewise; ``mtl.losses.register`` adds to them.
      scaled: whether numbers are standardised for training, by the mean and the spread of the training labels.
      least: the least that a number can be.
      dense: whether an example has a label at each of many positions (the pixels of an image), and not one.
    """

    labels: str
    outputs: int = 1
    metrics: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    scaled: bool = False
    least: float = -math.inf
    dense: bool = False


#: Kinds of tasks by name; ``register`` adds to them.
KINDS: dict[str, Kind] = {
    "binary": Kind(
        "binary",
        metrics=("accuracy", "auroc", "average_precision", "f1", "log_loss", "brier", "ece"),
        losses=("logistic",),
    ),
    "multiclass": Kind("ids", outputs=0, metrics=("accuracy", "f1", "log_loss", "brier", "ece"), losses=("softmax",)),
    "regression": Kind("numbers", metrics=("r2", "squared_error"), losses=("squared",), scaled=True),
    "segmentation": Kind("ids", outputs=0, metrics=("iou", "pixel_accuracy"), losses=("softmax",), dense=True),
    "dense_regression": Kind("numbers", metrics=("pixel_squared_error",), losses=("squared",), scaled=True, dense=True),
}

#: Those of them that are ours: a result says itself what any other is, for readers without the config.
OURS = tuple(KINDS)


def register(
    name: str,
    labels: str,
    *,
    outputs: int = 1,
    metrics: Iterable[str],
    scaled: bool = False,
    least: float | int = -math.inf,
    dense: bool = False,
) -> None:
    """Add a kind of task; ``mtl.losses.register(…, kind=name)`` gives it the loss that it trains by.

    Executing a config file twice registers the same kind again, which is allowed.

    Args:
      name: what data sets and configs call it.
      labels, outputs, scaled, least, dense: see ``Kind``.
      metrics: names of the metrics that its tasks can have, the default first; ``mtl.metrics.register`` adds to them.

    Raises:
      ValueError: if another kind has that name, or for what a kind cannot be.

    >>> register("count", "numbers", metrics=["squared_error"], least=0)
    >>> KINDS.pop("count").scaled
    False
    """
    made = Kind(labels, outputs, tuple(metrics), (), scaled, float(least), dense)
    if labels not in ("binary", "ids", "numbers"):
        raise ValueError(f'kind "{name}": labels = "{labels}": {suggest(labels, ("binary", "ids", "numbers"))}')
    if outputs < 0 or (outputs == 0 and labels != "ids"):
        raise ValueError(f'kind "{name}": outputs = {outputs}: must be at least 1, or 0 for one a class of ids')
    if not made.metrics:
        raise ValueError(f'kind "{name}": has no metric: must name one or more')
    known = KINDS.get(name)
    if known is None:
        KINDS[name] = made
    elif dataclasses.replace(known, losses=(), metrics=known.metrics[: len(made.metrics)]) != made:
        raise ValueError(f'kind "{name}" is registered already, and is another: give this one another name')


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
    class ids; a ``regression`` task has one output and real labels; ``segmentation`` and ``dense_regression`` have
    class ids and real labels at each position. A missing label is NaN (floats) or −1 (class ids) where data enter, and
    a mask from there on.

    Args:
      name: the task's name, the key of its head in ``params["heads"]``.
      kind: a name in ``KINDS``.
      num_classes: number of classes of a task whose labels are class ids, at least 2; 0 for the others.
      shape: the positions at which an example has a label, (height, width) or any other; empty unless it is dense.
      metric: the metric reported for it; empty for the kind's default.
      weight: what this task's loss is multiplied by in a sum over tasks.
      pos_weight: what the loss of a positive label is multiplied by (``binary`` only).
      label_smoothing: ε in [0, 1): the target moves towards the uniform distribution by ε.
      focal_gamma: γ ≥ 0 of the focal loss, (1 − p_true)^γ times the loss (Lin et al. 2017, arXiv:1708.02002).
      loss: its loss; empty for the kind's default. Only ``logistic`` and ``softmax`` take the three options above.

    Raises:
      ValueError: for an empty name, a kind, metric or loss that does not exist, one that the kind cannot have, or an
        option that the kind or the loss does not take.

    >>> Task("pedestrian", "binary").outputs
    1
    >>> Task("digit", "multiclass", num_classes=10).metric
    'accuracy'
    """

    name: str
    kind: str
    num_classes: int = 0
    metric: str = ""
    weight: float = 1.0
    pos_weight: float = 1.0
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    loss: str = ""
    shape: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Fill in the default metric and refuse what cannot be."""
        if not self.name:
            raise ValueError('task "": name: must not be empty')
        if self.kind not in KINDS:
            raise ValueError(f'task "{self.name}": kind "{self.kind}": {suggest(str(self.kind), KINDS)}')
        kind = KINDS[self.kind]
        if kind.labels == "ids" and self.num_classes < 2:
            raise ValueError(f'task "{self.name}": num_classes = {self.num_classes}: must be at least 2')
        if kind.labels != "ids" and self.num_classes != 0:
            raise ValueError(f'task "{self.name}": num_classes = {self.num_classes}: must be 0 for {self.kind}')
        object.__setattr__(self, "shape", tuple(self.shape))
        if bool(self.shape) != kind.dense or any(size < 1 for size in self.shape):
            right = "positions, such as (height, width)" if kind.dense else f"empty for {self.kind}"
            raise ValueError(f'task "{self.name}": shape = {self.shape}: must be {right}')
        if not kind.losses:
            raise ValueError(f'task "{self.name}": kind "{self.kind}" has no loss: register one for it')
        if not self.metric:
            object.__setattr__(self, "metric", kind.metrics[0])
        for what, chosen, valid in (("metric", self.metric, kind.metrics), ("loss", self.loss, kind.losses)):
            if chosen and chosen not in valid:
                raise ValueError(
                    f'task "{self.name}": a {self.kind} task cannot have {what} "{chosen}": {suggest(chosen, valid)}'
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
        if self.pos_weight != 1.0 and kind.labels != "binary":
            raise ValueError(f'task "{self.name}": pos_weight is for binary tasks, not {self.kind}')
        if kind.labels == "numbers" and (self.label_smoothing or self.focal_gamma):
            raise ValueError(f'task "{self.name}": label_smoothing and focal_gamma are not for {self.kind}')

        options = {"pos_weight": 1.0, "label_smoothing": 0.0, "focal_gamma": 0.0}
        set_ones = [name for name, off in options.items() if getattr(self, name) != off]
        if (loss := self.loss or kind.losses[0]) not in ("logistic", "softmax") and set_ones:
            takes = "logistic" if kind.labels == "binary" else "softmax"
            raise ValueError(f'task "{self.name}": {set_ones[0]} is for the loss "{takes}", not "{loss}"')

    @property
    def labels(self) -> str:
        """What its labels are: ``binary``, ``ids`` or ``numbers``."""
        return KINDS[self.kind].labels

    @property
    def scaled(self) -> bool:
        """Whether its labels are standardised for training."""
        return KINDS[self.kind].scaled

    @property
    def classes(self) -> int:
        """Number of classes; 0 where labels are numbers."""
        return {"binary": 2, "ids": self.num_classes, "numbers": 0}[self.labels]

    @property
    def outputs(self) -> int:
        """Number of outputs of the task's head, at each position if it is dense."""
        return KINDS[self.kind].outputs or self.num_classes

    @property
    def label_dtype(self) -> str:
        """``int32`` for class ids, ``float32`` for 0 and 1, ``float64`` for numbers (scaled before any cast)."""
        return {"binary": "float32", "ids": "int32", "numbers": "float64"}[self.labels]
