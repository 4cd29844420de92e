"""A phase's heads as one matrix while its steps run: one product, one update, whatever the number of tasks.

With ten tasks a step otherwise makes ten small matrix products, thirty gradients and thirty updates of a few numbers
each, every one an operation of its own to start (measured, ten binary heads on a 128-wide trunk, batch 32: 0.8 of the
time, and half of the time to compile). Before the steps the columns of all heads are put side by side, in the order of
the tasks' names, and after them they are dealt out again; nothing outside of the loop knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mtl import params as paths
from mtl.tasks import Task
from mtl.train.program import Numbers, Program

PyTree = Any

#: What the joined heads are called among a trainable part's heads: the only name that no task can have.
JOINED = ""

#: The slot that holds one number a group (see ``train.optimizer``).
COUNT = "count"


@dataclasses.dataclass(frozen=True)
class Columns:
    """Tasks whose losses are computed together: of one kind, with the same options.

    Attributes:
      task: any of them.
      names: all of them, sorted.
      begins: the first column of each.
    """

    task: Task
    names: tuple[str, ...]
    begins: tuple[int, ...]

    def of(self, outputs: Array) -> Array:
        """Return their part of all columns, [rows, tasks, outputs of a task]."""
        k, n = self.task.outputs, len(self.names)
        first = self.begins[0]
        if self.begins == tuple(range(first, first + k * n, k)):
            found = outputs[:, first : first + k * n]
        else:
            found = jnp.concatenate([outputs[:, b : b + k] for b in self.begins], axis=1)
        return found.reshape(outputs.shape[0], n, k)


def ordered(program: Program) -> list[Task]:
    """Return the phase's tasks in the order of their columns: by name, whatever the order that the phase has."""
    return sorted(program.specs, key=lambda t: t.name)


def columns(tasks: Iterable[Task]) -> list[Columns]:
    """Return the columns of tasks by what their losses have in common; in the order of the tasks' names."""
    found: dict[Task, tuple[list[str], list[int]]] = {}
    begin = 0
    for task in sorted(tasks, key=lambda t: t.name):
        # The weight is a number of the lane, and the metric is none of the loss's business.
        names, begins = found.setdefault(dataclasses.replace(task, name="any", weight=1.0, metric=""), ([], []))
        names.append(task.name)
        begins.append(begin)
        begin += task.outputs
    return [Columns(task, tuple(names), tuple(begins)) for task, (names, begins) in found.items()]


def joins(program: Program) -> bool:
    """Return whether all of the phase's heads move as a whole, so that they can be one."""
    moving = set(program.trainable)
    return all({paths.join("heads", t, leaf) for leaf in ("kernel", "bias")} <= moving for t in program.tasks)


def join(program: Program, trainable: PyTree, slots: dict[str, PyTree]) -> tuple[PyTree, dict[str, PyTree]]:
    """Return a trainable part and its optimizer state with the phase's heads as one.

    What is one number a head (the count of its updates) becomes one a column. Arrays may have leading axes, and be
    NumPy's: the host joins the heads of a pack before it runs, since XLA takes seconds to compile all the slices.
    """
    tasks = ordered(program)
    together = {
        "backbone": trainable["backbone"],
        "heads": {JOINED: beside(trainable["heads"][t.name] for t in tasks)},
    }
    rest = {name: state for name, state in slots.items() if not name.startswith("heads/")}
    return together, {**rest, f"heads/{JOINED}": beside(_wide(slots[f"heads/{t.name}"], t.outputs) for t in tasks)}


def part(
    program: Program, trainable: PyTree, slots: dict[str, PyTree] | None = None, others: PyTree = None
) -> tuple[PyTree, dict[str, PyTree]]:
    """Undo ``join``.

    Args:
      program: the phase.
      trainable, slots: as ``join`` returned them, moved; without slots none are returned.
      others: what heads of other tasks are among the trainable parts, i.e. trees of ``None``.
    """
    heads = dict(others or {})
    states = {name: state for name, state in (slots or {}).items() if not name.startswith("heads/")}
    begin = 0
    for task in ordered(program):
        one = slice(begin, begin + task.outputs)
        begin += task.outputs
        heads[task.name] = jax.tree.map(lambda a, o=one: a[..., o], trainable["heads"][JOINED])
        if slots is not None:
            state = slots[f"heads/{JOINED}"]
            states[f"heads/{task.name}"] = {
                name: a[..., one.start] if name == COUNT else jax.tree.map(lambda a, o=one: a[..., o], a)
                for name, a in state.items()
            }
    return {"backbone": trainable["backbone"], "heads": heads}, states


def is_joined(trainable: PyTree) -> bool:
    """Return whether a trainable part's heads are one."""
    return JOINED in trainable["heads"]


def _wide(state: dict[str, PyTree], width: int) -> dict[str, PyTree]:
    def columns(a: Numbers) -> Numbers:
        return np.repeat(a[..., None], width, axis=-1) if _host(a) else jnp.repeat(a[..., None], width, axis=-1)

    return {name: columns(a) if name == COUNT else a for name, a in state.items()}


def beside(trees: Iterable[PyTree]) -> PyTree:
    """Return the columns of several heads side by side."""

    def concatenate(*parts: Numbers) -> Numbers:
        return (np if all(map(_host, parts)) else jnp).concatenate(parts, axis=-1)

    return jax.tree.map(concatenate, *trees)


def _host(a: Numbers) -> bool:
    return isinstance(a, np.ndarray)
