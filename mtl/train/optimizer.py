"""Optimizers: one for the backbone and one for each head, so that a head can rest."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
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


def transform(spec: Optimizer) -> optax.GradientTransformation:
    """Return the direction, before decay and learning rate."""
    if spec.name == "adam":
        return optax.flatten(optax.scale_by_adam(b1=spec.momentum, b2=spec.b2))
    if spec.momentum:
        return optax.trace(decay=spec.momentum, nesterov=spec.nesterov)
    return optax.identity()


def groups(trainable: PyTree) -> dict[str, PyTree]:
    """Return the trainable parameters by group: ``backbone``, and each head that has any."""
    found = {"backbone": trainable["backbone"], **{f"heads/{t}": p for t, p in trainable["heads"].items()}}
    return {name: part for name, part in found.items() if jax.tree.leaves(part)}


def init(spec: Optimizer, trainable: PyTree) -> dict[str, PyTree]:
    """Return the optimizer's state: one entry a group, holding slots for trainable leaves only."""
    return {name: transform(spec).init(part) for name, part in groups(trainable).items()}


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
      active: per task, whether its head moves; tasks that always have labels may be left out.
    """
    if spec.clip:
        norm = optax.tree.norm(grads)
        shrink = jnp.minimum(1.0, spec.clip / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny))
        grads = jax.tree.map(lambda g: g * shrink, grads)
    eta = rate(spec, lane, step)
    new_params, new_state = dict(groups(trainable)), dict(state)
    for name, gradient in groups(grads).items():
        old = new_params[name]
        direction, slots = transform(spec).update(gradient, state[name], old)
        moved = jax.tree.map(lambda p, d: p - eta * (d + lane.weight_decay * p), old, direction)
        moves = active.get(name.removeprefix("heads/"))
        if moves is not None and name != "backbone":
            keep = lambda new, was: jnp.where(moves, new, was)  # noqa: B023, E731 — used within the iteration
            moved, slots = jax.tree.map(keep, moved, old), jax.tree.map(keep, slots, state[name])
        new_params[name], new_state[name] = moved, slots
    rebuilt = {
        "backbone": new_params.get("backbone", trainable["backbone"]),
        "heads": {t: new_params.get(f"heads/{t}", p) for t, p in trainable["heads"].items()},
    }
    return rebuilt, new_state
