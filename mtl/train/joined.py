"""A phase's heads as one matrix while its steps run: one product, one update, whatever the number of tasks.

With ten tasks a step otherwise makes ten small matrix products, thirty gradients and thirty updates of a few numbers
each, every one an operation of its own to start (measured, ten binary heads on a 128-wide trunk, batch 32: 0.8 of the
time, and half of the time to compile). Before the steps the columns of all heads are put side by side, in the order of
the tasks' names, and after them they are dealt out again; nothing outside of the loop knows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mtl.tasks import Task
from mtl.train.program import Numbers, Program

PyTree = Any

#: What the joined heads are called among a trainable part's heads.
JOINED = "+"


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


def columns(program: Program) -> list[Columns]:
    """Return the phase's columns by what their losses have in common."""
    found: dict[Task, tuple[list[str], list[int]]] = {}
    begin = 0
    for task in ordered(program):
        # The weight is a number of the lane, and the metric is none of the loss's business.
        names, begins = found.setdefault(dataclasses.replace(task, name="any", weight=1.0, metric=""), ([], []))
        names.append(task.name)
        begins.append(begin)
        begin += task.outputs
    return [Columns(task, tuple(names), tuple(begins)) for task, (names, begins) in found.items()]


def joins(program: Program) -> bool:
    """Return whether all of the phase's heads move as a whole, so that they can be one."""
    moving = set(program.trainable)
    return all({f"heads/{t}/kernel", f"heads/{t}/bias"} <= moving for t in program.tasks)


def join(program: Program, trainable: PyTree, slots: dict[str, PyTree]) -> tuple[PyTree, dict[str, PyTree]]:
    """Return a trainable part and its optimizer state with the phase's heads as one.

    What is one number a head (the count of its updates) becomes one a column.
    """
    tasks = ordered(program)
    heads = [trainable["heads"][t.name] for t in tasks]
    together = {"backbone": trainable["backbone"], "heads": {JOINED: jax.tree.map(_beside, *heads)}}
    wide = [
        jax.tree.map(lambda a, n=t.outputs: a if a.ndim else jnp.repeat(a, n), slots[f"heads/{t.name}"]) for t in tasks
    ]
    rest = {name: state for name, state in slots.items() if not name.startswith("heads/")}
    return together, {**rest, f"heads/{JOINED}": jax.tree.map(_beside, *wide)}


def part(
    program: Program, trainable: PyTree, slots: dict[str, PyTree], like: tuple[PyTree, dict[str, PyTree]]
) -> tuple[PyTree, dict[str, PyTree]]:
    """Undo ``join``.

    Args:
      program: the phase.
      trainable, slots: as ``join`` returned them, moved.
      like: what ``join`` was given: heads of other tasks are taken from it, and shapes.
    """
    heads, states = dict(like[0]["heads"]), dict(like[1])
    states |= {name: state for name, state in slots.items() if not name.startswith("heads/")}
    begin = 0
    for task in ordered(program):
        one = slice(begin, begin + task.outputs)
        begin += task.outputs
        heads[task.name] = jax.tree.map(lambda a, o=one: a[..., o], trainable["heads"][JOINED])
        name = f"heads/{task.name}"
        states[name] = jax.tree.map(
            lambda a, was, o=one: a[..., o] if was.ndim else a[o.start], slots[f"heads/{JOINED}"], like[1][name]
        )
    return {"backbone": trainable["backbone"], "heads": heads}, states


def _beside(*parts: Numbers) -> Array:
    return jnp.concatenate(parts, axis=-1)
