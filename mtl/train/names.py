"""Programs without the names of tasks: phases whose tasks differ in these alone share one, and their packs.

A task's name decides which labels it has, which stream its batches and its head are drawn from, and where its results
go: all of these are data of a lane. In a compiled program tasks are called by numbers (see ``models.numbered``);
``renamed`` takes weights from one spelling to the other, before the program runs and after.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from mtl import params as paths
from mtl.inputs import Shape
from mtl.models import numbered
from mtl.train.program import Program, Weights
from mtl.train.trial import Stage


@dataclasses.dataclass(frozen=True)
class Numbered:
    """A phase with numbers in place of names.

    Attributes:
      stage: the phase as it is compiled; what starts fresh has its names still.
      numbers: of each name the number.
    """

    stage: Stage
    numbers: dict[str, str]

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """Of each number the name."""
        return {number: name for name, number in self.numbers.items()}


def nameless(stage: Stage, shape: Shape) -> Numbered:
    """Return a phase with numbers in place of names.

    Args:
      stage: the phase.
      shape: what one input is.
    """
    program, numbers, order = _nameless(stage.program, shape)
    rates = tuple(stage.hypers.rates[i] for i in order) if len(stage.hypers.rates) else ()
    return Numbered(
        dataclasses.replace(stage, program=program, hypers=dataclasses.replace(stage.hypers, rates=rates)), numbers
    )


@functools.lru_cache(maxsize=1024)
def _nameless(program: Program, shape: Shape) -> tuple[Program, dict[str, str], tuple[int, ...]]:
    """Return (the program without names, the number of each name, where each of its trainable paths was)."""
    model, numbers = numbered(program.model, shape, program.tasks)
    heads = {f"{paths.join('heads', name)}/": f"{paths.join('heads', number)}/" for name, number in numbers.items()}

    def moved(path: str) -> str:
        head = "/".join(path.split("/", 2)[:2]) + "/"
        return heads[head] + path.removeprefix(head) if head in heads else path

    trainable = sorted((moved(path), i) for i, path in enumerate(program.trainable))
    found = dataclasses.replace(
        program,
        model=model,
        tasks=tuple(numbers[t] for t in program.tasks),
        judges=tuple(numbers[t] for t in program.judges),
        trainable=tuple(path for path, _ in trainable),
        augment=tuple(_renamed_classes(operation, numbers) for operation in program.augment),
    )
    return _same(found), numbers, tuple(i for _, i in trainable)


def _renamed_classes(operation: Any, numbers: Mapping[str, str]) -> Any:
    """Return an operation on images; one that mixes labels holds the number of classes by task."""
    if not getattr(operation, "classes", ()):
        return operation
    return dataclasses.replace(operation, classes=tuple((numbers[name], n) for name, n in operation.classes))


@functools.lru_cache(maxsize=256)
def _same(program: Program) -> Program:
    """Return one object for equal programs, which are cheaper to compare then."""
    return program


def renamed(weights: Weights, names: Mapping[str, str]) -> Weights:
    """Return weights whose heads are called as ``names`` says of each.

    >>> renamed(Weights({"backbone": {}, "heads": {"even": 1}}, {}), {"even": "0"}).params["heads"]
    {'0': 1}
    """
    heads = {names[name]: head for name, head in weights.params["heads"].items()}
    return Weights({**weights.params, "heads": heads}, weights.state)
