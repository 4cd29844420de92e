"""Numbers in place of tasks' names: models that differ in these alone are one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from mtl.inputs import Shape
from mtl.losses import registers
from mtl.models.anatomy import anatomy
from mtl.models.model import Model


def numbered(model: Model, shape: Shape, first: Sequence[str]) -> tuple[Model, dict[str, str]]:
    """Return (a model whose tasks are called by numbers, the number of each task's name).

    Some tasks come first, in the order of their names, as phases have them (see ``train.stacks``); the others after
    them, by what they are. Weights are hyperparameters, and are left out. A model whose backbone knows its tasks by
    name, or with dense ones, whose labels are kept by name, keeps its names.

    Args:
      model: the model.
      shape: what one input is.
      first: names of the tasks that come first.

    >>> from mtl.models import build
    >>> from mtl.tasks import Task
    >>> one, two = (build("mlp", {}, (Task(name, "binary"), Task("m", "regression"))) for name in "az")
    >>> numbered(one, (4,), "a")[0] == numbered(two, (4,), "z")[0], numbered(two, (4,), "z")[1]
    (True, {'z': '0', 'm': '1'})
    """
    by_name = model.told or isinstance(anatomy(model, shape).features, Mapping)
    if by_name or any(task.shape for task in model.tasks):
        return model, {task.name: task.name for task in model.tasks}
    early = set(first)
    bare = {task.name: dataclasses.replace(task, name="any", weight=1.0) for task in model.tasks}
    tasks = sorted(model.tasks, key=lambda t: (t.name not in early, repr(bare[t.name]) * (t.name not in early), t.name))
    width = len(str(len(tasks) - 1))  # So that their order as texts is that as numbers.
    numbers = {task.name: f"{i:0{width}}" for i, task in enumerate(tasks)}
    losses = dict(zip((t.name for t in model.tasks if registers(t)), model.losses, strict=True))
    own = tuple(losses[t.name] for t in tasks if t.name in losses)
    named = tuple(dataclasses.replace(bare[t.name], name=numbers[t.name]) for t in tasks)
    return dataclasses.replace(model, tasks=named, losses=own), numbers
