"""Optimizers: one for the backbone and one for each head, so that a head can rest."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mtl.train.program import Lane, Numbers, Optimizer

PyTree = Any


def rate(spec: Optimizer, lane: Lane, step: Array) -> Numbers:
    """Return the learning rate at a step: η · warm-up · schedule.

    Warm-up rises linearly over the first ``warmup`` share of the steps; ``cosine`` then falls to zero as
    ½(1 + cos πt) (Loshchilov & Hutter 2017, arXiv:1608.03983).
    """
    eta = lane.lr
    if spec.warmup:
        eta = eta * jnp.minimum(1.0, (step + 1) / jnp.maximum(1.0, spec.warmup * lane.steps))
    if spec.schedule == "cosine":
        begin = spec.warmup * lane.steps
        t = jnp.clip((step - begin) / jnp.maximum(1.0, lane.steps - begin), 0.0, 1.0)
        eta = eta * 0.5 * (1.0 + jnp.cos(jnp.pi * t))
    return eta


def direction(spec: Optimizer, gradient: PyTree, slots: dict[str, PyTree]) -> tuple[PyTree, dict[str, PyTree]]:
    """Return (the direction of an update, before decay and learning rate; the new slots).

    Adam (Kingma & Ba 2015, arXiv:1412.6980): m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², and the direction is
    a·m / (√(b·v) + ε) with a = 1/(1 − β₁ᵗ), b = 1/(1 − β₂ᵗ). SGD: the velocity u ← μu + g, or g + μu for Nesterov's.
    """
    if spec.name == "sgd":
        if not spec.momentum:
            return gradient, slots
        velocity = jax.tree.map(lambda g, u: g + spec.momentum * u, gradient, slots["velocity"])
        ahead = jax.tree.map(lambda g, u: g + spec.momentum * u, gradient, velocity) if spec.nesterov else velocity
        return ahead, {"velocity": velocity}
    count = slots["count"] + 1
    m = jax.tree.map(lambda g, m: spec.momentum * m + (1 - spec.momentum) * g, gradient, slots["m"])
    v = jax.tree.map(lambda g, v: spec.b2 * v + (1 - spec.b2) * jnp.square(g), gradient, slots["v"])
    # Reciprocals of these few numbers, not quotients by them: of the two divisions and the root that are left of an
    # element's update one remains (0.8 of the time of an update, measured on 26,000 parameters).
    a, b = (1 / (1 - beta ** count.astype(jnp.float32)) for beta in (spec.momentum, spec.b2))
    return jax.tree.map(lambda m, v: _along(a, m) * m / (jnp.sqrt(_along(b, v) * v) + _EPSILON), m, v), {
        "count": count,
        "m": m,
        "v": v,
    }


#: Adam's ε.
_EPSILON = 1e-8


def _along(number: Array, a: Array) -> Array:
    """Return one number, or one a column, ready to go with an array's last axis."""
    return number.reshape((1,) * (a.ndim - 1) + (-1,)) if number.ndim else number


def groups(trainable: PyTree) -> dict[str, PyTree]:
    """Return the trainable parameters by group: ``backbone``, and each head that has any."""
    found = {"backbone": trainable["backbone"], **{f"heads/{t}": p for t, p in trainable["heads"].items()}}
    return {name: part for name, part in found.items() if jax.tree.leaves(part)}


def init(spec: Optimizer, trainable: PyTree) -> dict[str, PyTree]:
    """Return the optimizer's state: one entry a group, holding slots for trainable leaves only."""
    return {name: _zeros(spec, part) for name, part in groups(trainable).items()}


def _zeros(spec: Optimizer, part: PyTree) -> dict[str, PyTree]:
    zeros = lambda: jax.tree.map(jnp.zeros_like, part)  # noqa: E731 — each slot its own
    if spec.name == "adam":
        return {"count": jnp.zeros((), jnp.int32), "m": zeros(), "v": zeros()}
    return {"velocity": zeros()} if spec.momentum else {}


def update(
    spec: Optimizer,
    lane: Lane,
    step: Array,
    grads: PyTree,
    state: dict[str, PyTree],
    trainable: PyTree,
    active: dict[str, Array],
) -> tuple[PyTree, dict[str, PyTree]]:
    """Return (trainable, state) after one update.

    θ ← θ − η_t (direction(g) + λθ). Gradients are clipped by the global norm of all trainable leaves first. A head
    whose task has no label in the batch keeps its parameters and its slots.

    Args:
      spec: the optimizer.
      lane: learning rate and weight decay.
      step: the step's index in the phase.
      grads: gradients of the trainable part.
      state: as ``init`` returns it.
      trainable: the trainable part.
      active: per task, whether its head moves; tasks that always have labels may be left out. Of joined heads, one a
        column (see ``train.joined``).
    """
    if spec.clip:
        norm = jnp.sqrt(sum((jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)), jnp.zeros(())))
        shrink = jnp.minimum(1.0, spec.clip / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny))
        grads = jax.tree.map(lambda g: g * shrink, grads)
    eta = rate(spec, lane, step)
    new_params, new_state = dict(groups(trainable)), dict(state)
    for name, gradient in groups(grads).items():
        old = new_params[name]
        step_along, slots = direction(spec, gradient, state[name])
        moved = jax.tree.map(lambda p, d: p - eta * (d + lane.weight_decay * p), old, step_along)
        moves = active.get(name.removeprefix("heads/"))
        if moves is not None and name != "backbone":
            keep = lambda new, was: jnp.where(_along(moves, new), new, was)  # noqa: B023, E731 — used at once
            moved, slots = jax.tree.map(keep, moved, old), jax.tree.map(keep, slots, state[name])
        new_params[name], new_state[name] = moved, slots
    rebuilt = {
        "backbone": new_params.get("backbone", trainable["backbone"]),
        "heads": {t: new_params.get(f"heads/{t}", p) for t, p in trainable["heads"].items()},
    }
    return rebuilt, new_state
