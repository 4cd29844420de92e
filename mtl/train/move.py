"""The last part of a step: an optimizer for the trunk, and the same mapped over stacks of heads, which may rest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from mtl import optim
from mtl.optim import rates
from mtl.params import join, path_of
from mtl.train.program import Hypers, Program
from mtl.train.stacks import Stack, stacks_of

PyTree = Any


def init(program: Program, hypers: Hypers, trainable: PyTree) -> dict[str, PyTree]:
    """Return the optimizer's state: for trainable leaves only, of each head its own.

    Args:
      program: the phase.
      hypers: its numbers.
      trainable: the parameters that move, heads as stacks.
    """
    found: dict[str, PyTree] = {}
    tasks = len(program.tasks) if program.optimizer.per_task else 0
    for name, part in _parts(trainable):
        one = functools.partial(optim.init, program.optimizer, hypers.optimizer)
        if name == "backbone":
            one = functools.partial(one, tasks=tasks)
        if name != "backbone" and jax.tree.leaves(part):
            head = jax.tree.map(lambda a: jax.ShapeDtypeStruct((*a.shape[:-2], a.shape[-1]), a.dtype), part)
            out = jax.tree.map(lambda a: max(0, a.ndim - 1), jax.eval_shape(one, head))
            one = jax.vmap(one, in_axes=(_axes(part),), out_axes=out)
        found[name] = one(part) if jax.tree.leaves(part) else ()
    return found


def move(
    program: Program,
    hypers: Hypers,
    step: Array,
    grads: PyTree,
    opt_state: Mapping[str, PyTree],
    trainable: PyTree,
    active: Bool[Array, " tasks"] | None,
) -> tuple[PyTree, dict[str, PyTree]]:
    """Return (trainable, optimizer state) after one update; see ``optim.update``.

    Gradients are clipped by the global norm of all trainable leaves first. A head whose task has no label in the batch
    keeps its parameters and its state, whatever the optimizer.

    Args:
      program: the phase.
      hypers: its numbers.
      step: the step's index in the phase.
      grads: gradients of the trainable part; of an optimizer with moments for each task, the trunk's one a task.
      opt_state: as ``init`` returns it.
      trainable: the parameters that move, heads as stacks.
      active: whether each task's head moves, tasks as in ``stacks.ordered``; none if all of them do.
    """
    o, numbers = program.optimizer, hypers.optimizer
    if o.clip:
        summed = jax.tree.map(lambda a: a.sum(axis=0), grads["backbone"]) if o.per_task else grads["backbone"]
        grads = optim.clipped(numbers["clip"], grads, {**grads, "backbone": summed})
    eta = rates.rate(o.schedule, numbers, hypers.lr, hypers.steps, step)

    shown = None
    if o.per_task:
        shown = jnp.ones(len(program.tasks), bool) if active is None else active

    def one(
        shown: Array | None, grads: PyTree, old: tuple[PyTree, PyTree], rates: PyTree, moves: Array | None
    ) -> tuple[PyTree, PyTree]:
        new = optim.update(o, numbers, eta, grads, old[1], old[0], rates, shown)
        return new if moves is None else jax.tree.map(lambda a, b: jnp.where(moves, a, b), new, old)

    moved, states, seen = {}, {}, 0
    for name, part in _parts(trainable):
        stack = None if name == "backbone" else stacks_of(program)[int(name)]
        own = slice(seen, seen := seen + (len(stack.tasks) if stack else 0))
        moved[name], states[name] = part, opt_state[name]
        if not jax.tree.leaves(part):
            continue
        gradient = grads["backbone"] if stack is None else grads["heads"][name]
        moves = None if active is None or stack is None else stack.each(active[own])
        given = (gradient, (part, opt_state[name]), _rates(program, hypers, stack, part), moves)
        run: Callable[..., tuple[PyTree, PyTree]] = functools.partial(one, shown if stack is None else None)
        if stack is not None:
            run = jax.vmap(run, in_axes=_axes(given), out_axes=_axes(given[1]))
        moved[name], states[name] = run(*given)
    return _whole(trainable, moved), states


def evaluated(program: Program, opt_state: Mapping[str, PyTree], trainable: PyTree) -> PyTree:
    """Return the trainable part as it is evaluated and kept: as it is, or an average that the optimizer keeps."""
    if not averages(program):
        return trainable
    one = functools.partial(optim.evaluated, program.optimizer)
    found = {}
    for name, part in _parts(trainable):
        given = (opt_state[name], part)
        run = one if name == "backbone" else jax.vmap(one, in_axes=_axes(given), out_axes=_axes(part))
        found[name] = run(*given) if jax.tree.leaves(part) else part
    return _whole(trainable, found)


def averages(program: Program) -> bool:
    """Return whether other parameters are evaluated than those that move."""
    return bool(program.solver.averages(program.optimizer))


def _parts(params: PyTree) -> list[tuple[str, PyTree]]:
    """Return the parts that have an optimizer each: the backbone, and the stacks."""
    return [("backbone", params["backbone"]), *params["heads"].items()]


def _whole(params: PyTree, parts: Mapping[str, PyTree]) -> PyTree:
    return {**params, "backbone": parts["backbone"], "heads": {name: parts[name] for name in params["heads"]}}


def _axes(stacked: PyTree) -> PyTree:
    """Return the axis that the heads lie along, of each leaf of a stack and of what there is for each of its heads."""
    return jax.tree.map(lambda a: max(0, a.ndim - 2), stacked)


def _rates(program: Program, hypers: Hypers, stack: Stack | None, part: PyTree) -> PyTree:
    """Return the multiples of the rate of a part's leaves, one each; of a stack's, one a head. None for 1."""
    if not program.optimizer.rates:
        return None
    index = {path: i for i, path in enumerate(program.trainable)}

    def of(key_path: Any, _: Array) -> Array:
        leaf = path_of(key_path)
        if stack is None:
            return hypers.rates[index[f"backbone/{leaf}"]]
        at = [index[f"{join('heads', t.name)}/{leaf}"] for t in stack.tasks]
        return stack.each(hypers.rates[np.asarray(at)])

    return jax.tree_util.tree_map_with_path(of, part)
