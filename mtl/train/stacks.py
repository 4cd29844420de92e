"""A phase's heads as stacks while its steps run: one product and one update, whatever the number of tasks.

With ten tasks a step otherwise makes ten small matrix products, thirty gradients and thirty updates of a few numbers
each, every one an operation of its own to start (measured, ten binary heads on a 128-wide trunk, batch 32: 0.8 of the
time, and half of the time to compile). Heads of one width are one array [features, tasks, width], over whose tasks the
optimizer is mapped; where the optimizer is elementwise, so are the columns of heads of all widths, as if each column
were a head of its own. Nothing outside of a phase knows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mtl import losses
from mtl import params as paths
from mtl.models.features import Features, features_of
from mtl.tasks import Task
from mtl.train.program import Numbers, Program

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Stack:
    """Heads that are updated together: the same of their leaves move.

    Attributes:
      tasks: whose, sorted by name.
      width: outputs of each; 0 for any, one column after the other.
    """

    tasks: tuple[Task, ...]
    width: int

    def of(self, heads: Mapping[str, PyTree]) -> PyTree:
        """Return their heads as one tree, of leaves [..., tasks or columns, width]; on the host if they are there.

        XLA takes seconds to compile all the slices of many heads, so the host stacks and deals out.
        """

        def beside(*leaves: Numbers) -> Numbers:
            found = (np if all(isinstance(a, np.ndarray) for a in leaves) else jnp).concatenate(leaves, axis=-1)
            return found.reshape(*found.shape[:-1], -1, self.width or 1)

        return jax.tree.map(beside, *(heads[t.name] for t in self.tasks))

    def matrix(self, stacked: PyTree) -> PyTree:
        """Return a stack's leaves with the columns of all heads side by side, [..., columns]."""
        return jax.tree.map(lambda a: a.reshape(*a.shape[:-2], -1), stacked)

    def apart(self, stacked: PyTree) -> dict[str, PyTree]:
        """Return the heads by task: undo ``of``."""
        matrix, heads, begin = self.matrix(stacked), {}, 0
        for task in self.tasks:
            one = slice(begin, begin + task.outputs)
            begin += task.outputs
            heads[task.name] = jax.tree.map(lambda a, o=one: a[..., o], matrix)
        return heads

    def each(self, numbers: Array) -> Array:
        """Return one number a head that is updated, from one a task."""
        if self.width:
            return numbers
        wide = np.asarray([t.outputs for t in self.tasks])
        return jnp.repeat(numbers, wide, total_repeat_length=int(wide.sum()))


@functools.lru_cache(maxsize=256)
def stacks_of(program: Program) -> tuple[Stack, ...]:
    """Return the stacks of a phase's heads, in an order that does not depend on that of its tasks.

    Heads of one stack read features of one width.
    """
    features = dict(zip(program.tasks, program.widths or (0,) * len(program.tasks), strict=True))
    groups: dict[tuple[int, int, tuple[str, ...]], list[Task]] = {}
    for task in sorted(program.specs, key=lambda t: t.name):
        head = f"{paths.join('heads', task.name)}/"
        moving = tuple(p.removeprefix(head) for p in program.trainable if p.startswith(head))
        width = 0 if program.optimizer.elementwise else task.outputs
        groups.setdefault((width, features[task.name], moving), []).append(task)
    return tuple(Stack(tuple(tasks), width) for (width, *_), tasks in sorted(groups.items(), key=lambda g: g[0]))


def stacked(program: Program, params: PyTree) -> PyTree:
    """Return a tree of parameters with the heads of the phase's tasks as stacks, and those of others apart."""
    heads = params["heads"]
    others = {name: head for name, head in heads.items() if name not in program.tasks}
    return {
        "backbone": params["backbone"],
        "heads": {str(i): stack.of(heads) for i, stack in enumerate(stacks_of(program))},
        "others": others,
    }


def unstacked(program: Program, params: PyTree) -> PyTree:
    """Undo ``stacked``."""
    heads = dict(params["others"])
    for i, stack in enumerate(stacks_of(program)):
        heads |= stack.apart(params["heads"][str(i)])
    return {"backbone": params["backbone"], "heads": heads}


def outputs(program: Program, head: Callable[[PyTree, Array], Array], params: PyTree, features: Array) -> Array:
    """Return the outputs of all of a phase's heads, [rows, columns], in the order of ``ordered``."""
    each = [head(s.matrix(params["heads"][str(i)]), features) for i, s in enumerate(stacks_of(program))]
    return each[0] if len(each) == 1 else jnp.concatenate(each, axis=1)


def sums_apart(
    tasks: Sequence[Task],
    head: Callable[[PyTree, Array], Array],
    heads: Mapping[str, PyTree],
    features: Features,
    labels: Mapping[str, Any],
    mask: Array,
) -> Array:
    """Return the sum of each task's losses over the labels that are present, [tasks], one task after the other.

    Args:
      tasks: in the order of the columns of ``mask``.
      head: from a head and features to its outputs.
      heads: by task.
      features: of all tasks, or of each.
      labels: as a batch has them, see ``sampling.Batch``.
      mask: [rows, tasks].
    """
    sums = {}
    for group in columns(tasks):
        for i, (name, place) in enumerate(zip(group.names, group.places, strict=True)):
            task, there = tasks[place], mask[:, place]
            if task.shape:
                own, positions = labels[name]
                there = positions & there.reshape(-1, *[1] * len(task.shape))
            else:
                own = labels[group.names[0]][:, i]
            outputs = head(heads[name], features_of(features, name))
            sums[name] = jnp.sum(losses.values(task, outputs, own, there))
    return jnp.stack([sums[task.name] for task in tasks])


def in_one_matrix(features: Features, tasks: Sequence[Task]) -> TypeGuard[Array]:
    """Return whether all tasks have the same features and one label an example, so that their heads are one matrix."""
    return not isinstance(features, Mapping) and not any(task.shape for task in tasks)


def ordered(program: Program) -> tuple[Task, ...]:
    """Return the phase's tasks in the order of their columns."""
    return tuple(t for stack in stacks_of(program) for t in stack.tasks)


def order(program: Program) -> np.ndarray:
    """Return where each of ``ordered`` is among the phase's tasks."""
    return np.asarray([program.tasks.index(t.name) for t in ordered(program)])


@dataclasses.dataclass(frozen=True)
class Columns:
    """Tasks whose losses are computed together: of one kind, with the same options.

    Attributes:
      task: any of them.
      names: all of them.
      places: the place of each among all tasks.
      begins: the first output of each.
    """

    task: Task
    names: tuple[str, ...]
    places: tuple[int, ...]
    begins: tuple[int, ...]

    def of(self, numbers: Array) -> Array:
        """Return their part of what has a number a task, [rows, tasks]."""
        first, last = self.places[0], self.places[-1] + 1
        if self.places == tuple(range(first, last)):  # Cheaper than to pick them.
            return numbers[:, first:last]
        return numbers[:, np.asarray(self.places)]

    def values(self, outputs: Array, labels: Array, mask: Array) -> Array:
        """Return each of their losses, [rows, tasks], 0 where the label is missing."""
        return jax.vmap(functools.partial(losses.values, self.task), in_axes=1, out_axes=1)(outputs, labels, mask)

    def sums(self, outputs: Array, labels: Array, mask: Array) -> Array:
        """Return the sum of each of their losses over the labels that are present, [tasks]."""
        return jnp.sum(self.values(outputs, labels, mask), axis=0, where=mask)

    def outputs(self, found: Array) -> Array:
        """Return their part of all outputs, [rows, tasks, outputs of a task]."""
        k, n = self.task.outputs, len(self.names)
        first = self.begins[0]
        if self.begins == tuple(range(first, first + k * n, k)):
            own = found[:, first : first + k * n]
        else:
            own = jnp.concatenate([found[:, b : b + k] for b in self.begins], axis=1)
        return own.reshape(found.shape[0], n, k)


def columns(tasks: Sequence[Task]) -> list[Columns]:
    """Return the columns of tasks by what their losses have in common, in the order of the tasks."""
    found: dict[Task, list[tuple[str, int, int]]] = {}
    begin = 0
    for place, task in enumerate(tasks):
        # The weight is a hyperparameter, and the metric is none of the loss's business.
        alike = dataclasses.replace(task, name="any", weight=1.0, metric="")
        found.setdefault(alike, []).append((task.name, place, begin))
        begin += task.outputs
    return [Columns(task, *zip(*each, strict=True)) for task, each in found.items()]


def outputs_of(
    head: Callable[[PyTree, Array], Array], group: Columns, heads: Mapping[str, PyTree], features: Any, whole: bool
) -> Array:
    """Return the outputs of tasks whose losses are computed together, [rows, tasks, *shape, outputs of a task].

    Args:
      head: from a head and features to its outputs.
      group: the tasks.
      heads: by task.
      features: of all tasks, or of each.
      whole: whether their heads are one matrix, see ``in_one_matrix``.
    """
    if not whole:
        return jnp.stack([head(heads[t], features_of(features, t)) for t in group.names], axis=1)
    matrix = jax.tree.map(lambda *a: jnp.concatenate(a, axis=-1), *(heads[t] for t in group.names))
    return head(matrix, features).reshape(len(features), len(group.names), group.task.outputs)


def together(parts: Sequence[Columns], numbers: Sequence[Array]) -> Array:
    """Return one number a task, in the order of the tasks, from those of each of their ``columns``."""
    if len(parts) == 1:
        return numbers[0]
    return jnp.concatenate(numbers)[np.argsort(np.concatenate([part.places for part in parts]))]
