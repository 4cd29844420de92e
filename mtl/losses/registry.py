"""Losses by name, and a task's own over the labels that are present."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from mtl import tasks
from mtl.losses.formulas import logistic, softmax, squared
from mtl.options import check_free, tried


@dataclasses.dataclass(frozen=True)
class Loss:
    """What the name of a loss stands for.

    Attributes:
      values: ``(task, outputs [n, outputs], labels [n]) -> [n]``, unreduced.
      link: ``outputs [n, outputs] -> [n, outputs]`` as metrics take them: the logits of a class's probability, or
        predictions; none where they are that already.
    """

    values: Callable[[tasks.Task, Array, Array], Array]
    link: Callable[[Array], Array] | None = None


def _logistic(task: tasks.Task, z: Array, y: Array) -> Array:
    eps, gamma = task.label_smoothing, task.focal_gamma
    return logistic(z[:, 0], y, pos_weight=task.pos_weight, label_smoothing=eps, focal_gamma=gamma)


def _softmax(task: tasks.Task, z: Array, y: Array) -> Array:
    return softmax(z, y, label_smoothing=task.label_smoothing, focal_gamma=task.focal_gamma)


#: Losses by name; ``tasks.LOSSES`` says which kind of task can have which.
LOSSES: dict[str, Loss] = {
    "logistic": Loss(_logistic),
    "softmax": Loss(_softmax),
    "squared": Loss(lambda task, z, y: squared(z[:, 0], y)),
}


def register(
    name: str, kind: str, link: Callable[[Array], Array] | None = None
) -> Callable[[Callable[[Array, Array], Array]], Callable[[Array, Array], Array]]:
    """Make a function ``(outputs [n, outputs], labels [n]) -> [n]`` the loss of that name, as a decorator.

    It is called where labels are present, and never with a missing one: those are made harmless before and dropped
    after. A config has it with ``c.task_options.TASK.loss = NAME``.

    Args:
      name: what a config calls it.
      kind: of the tasks that can have it.
      link: from outputs to what metrics and predictions take: logits of a binary task, log-probabilities up to a
        constant of a multi-class one, predictions of a regression; by default they are that already.

    Raises:
      ValueError: if another loss has that name, or there is no such kind.

    >>> @register("doubt", "binary")
    ... def doubt(outputs, labels):
    ...     return jnp.square(jax.nn.sigmoid(outputs[:, 0]) - labels)
    >>> float(values(tasks.Task("t", "binary", loss="doubt"), jnp.zeros((1, 1)), jnp.ones(1), jnp.ones(1, bool))[0])
    0.25
    >>> tasks.LOSSES["binary"] = tasks.LOSSES["binary"][:-1]  # Forgotten again.
    """
    if kind not in tasks.LOSSES:
        raise ValueError(f'loss "{name}": kind = "{kind}": {tasks.suggest(kind, tasks.LOSSES)}')

    def decorate(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
        check_free(LOSSES[name].values if name in LOSSES else None, function, f'loss "{name}"')

        @functools.wraps(function)
        def of_any_task(task: tasks.Task, outputs: Array, labels: Array) -> Array:
            return function(outputs, labels)

        LOSSES[name] = Loss(of_any_task, link)
        tasks.LOSSES[kind] = tuple(dict.fromkeys((*tasks.LOSSES[kind], name)))
        return function

    return decorate


def values(
    task: tasks.Task,
    outputs: Float[Array, "batch outputs"],
    labels: Real[Array, " batch"] | Float[Array, "batch outputs"],
    mask: Bool[Array, " batch"],
) -> Float[Array, " batch"]:
    """Return one task's unreduced losses; exactly zero, gradient included, where the label is missing.

    v_i = m_i · l(z_i, y_i), with l the loss of the task's kind, in 32 bits or more; 0 · NaN never arises.

    Args:
      task: which loss, and its options.
      outputs: the head's logits, or a regression's predictions.
      labels: class ids (integers) of a multiclass task, or its classes' probabilities; otherwise numbers, of a
        binary task in [0, 1]; anything where ``mask`` is false.
      mask: true where the label is present.

    Raises:
      ValueError: for outputs of another width than the task's, class ids that are not integers, or probabilities of
        a task that is not multiclass or has a focal factor.

    >>> labels, mask = jnp.array([1.0, jnp.nan]), jnp.array([True, False])
    >>> values(tasks.Task("toxic", "binary"), jnp.array([[0.0], [jnp.inf]]), labels, mask)
    Array([0.6931472, 0. ], dtype=float32)
    """
    if outputs.shape[-1] != task.outputs:
        raise ValueError(f'task "{task.name}": outputs of width {outputs.shape[-1]}: must be {task.outputs}')
    soft = labels.ndim == 2
    if soft and task.kind != "multiclass":
        raise ValueError(f'task "{task.name}": labels {labels.shape}: must be one number an example')
    if task.kind == "multiclass" and not soft and not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f'task "{task.name}": class ids of type {labels.dtype}: must be integers')
    # The double `where`: a missing slot is made harmless before the loss, or its gradient would be 0 · NaN;
    # and its loss is dropped after, for a harmless slot still has one.
    z = jnp.where(mask[:, None], outputs, 0).astype(jnp.promote_types(outputs.dtype, jnp.float32))
    y = jnp.where(mask[:, None] if soft else mask, labels, 0)
    if task.kind == "multiclass" and not soft:
        y = y.astype(jnp.int32)
    found = LOSSES[_name(task)].values(task, z, y)
    if found.shape != mask.shape:
        raise ValueError(f'loss "{_name(task)}": gives {found.shape}: must be {mask.shape}, a number a label')
    return jnp.where(mask, found, 0)


def linked(task: tasks.Task, outputs: Float[Array, "n outputs"]) -> Float[Array, "n outputs"]:
    """Return a head's outputs as metrics take them, by the link of the task's loss: logits, or predictions.

    >>> float(linked(tasks.Task("toxic", "binary"), jnp.array([[0.5]]))[0, 0])
    0.5
    """
    link = LOSSES[_name(task)].link
    return outputs if link is None else link(outputs)


def registered(of: Iterable[tasks.Task]) -> tuple[Loss, ...]:
    """Return the losses of tasks that have not their kind's default; each is tried out on shapes.

    Raises:
      ValueError: for a loss that cannot be used, or that gives anything but a number a label.

    >>> registered([tasks.Task("toxic", "binary")])
    ()
    """
    named = [task for task in of if task.loss]
    for task in named:
        outputs, mask = (jax.ShapeDtypeStruct(s, t) for s, t in (((2, task.outputs), jnp.float32), ((2,), jnp.bool)))
        labels = jax.ShapeDtypeStruct((2,), jnp.int32 if task.kind == "multiclass" else jnp.float32)
        with tried(f'loss "{task.loss}"'):
            jax.eval_shape(functools.partial(values, task), outputs, labels, mask)
            jax.eval_shape(functools.partial(linked, task), outputs)
    return tuple(LOSSES[task.loss] for task in named)


def _name(task: tasks.Task) -> str:
    return task.loss or tasks.LOSSES[task.kind][0]
