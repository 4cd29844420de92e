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


#: What a task computes without a config's help: its name is enough to say what is compiled.
_OURS = ("logistic", "softmax", "squared")

#: Losses by name; ``tasks.KINDS`` says which kind of task can have which.
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
    after. Of a dense task it is given all positions of all examples as n labels. A config has it with
    ``c.task_options.TASK.loss = NAME``.

    Args:
      name: what a config calls it.
      kind: of the tasks that can have it.
      link: from outputs [n, outputs] to what metrics and predictions take: logits of a binary task, log-probabilities
        of classes up to a constant, predictions of numbers; by default they are that already.

    Raises:
      ValueError: if another loss has that name, or there is no such kind.

    >>> @register("doubt", "binary")
    ... def doubt(outputs, labels):
    ...     return jnp.square(jax.nn.sigmoid(outputs[:, 0]) - labels)
    >>> float(values(tasks.Task("t", "binary", loss="doubt"), jnp.zeros((1, 1)), jnp.ones(1), jnp.ones(1, bool))[0])
    0.25
    >>> tasks.KINDS["binary"] = dataclasses.replace(tasks.KINDS["binary"], losses=("logistic",))  # Forgotten again.
    """
    if kind not in tasks.KINDS:
        raise ValueError(f'loss "{name}": kind = "{kind}": {tasks.suggest(kind, tasks.KINDS)}')

    def decorate(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
        check_free(LOSSES[name].values if name in LOSSES else None, function, f'loss "{name}"')

        @functools.wraps(function)
        def of_any_task(task: tasks.Task, outputs: Array, labels: Array) -> Array:
            return function(outputs, labels)

        LOSSES[name] = Loss(of_any_task, link)
        of = tasks.KINDS[kind]
        tasks.KINDS[kind] = dataclasses.replace(of, losses=tuple(dict.fromkeys((*of.losses, name))))
        return function

    return decorate


def values(
    task: tasks.Task,
    outputs: Float[Array, "batch *shape outputs"],
    labels: Real[Array, "batch ..."] | Float[Array, "batch outputs"],
    mask: Bool[Array, "batch ..."],
) -> Float[Array, " batch"]:
    """Return one task's unreduced losses; exactly zero, gradient included, where the label is missing.

    v_i = m_i · l(z_i, y_i), with l the loss of the task's kind, in 32 bits or more; 0 · NaN never arises. Of a dense
    task, an example's loss is the mean over the positions p that have a label: v_i = Σ_p m_ip l(z_ip, y_ip) / Σ_p m_ip,
    so that an image weighs as much as a label of it would, however many pixels it has.

    Args:
      task: which loss, and its options.
      outputs: the head's logits, or a regression's predictions.
      labels: class ids (integers) of a multiclass task, or its classes' probabilities; otherwise numbers, of a
        binary task in [0, 1]; anything where ``mask`` is false.
      mask: true where the label is present, at each position of a dense task.

    Raises:
      ValueError: for outputs of another width than the task's, class ids that are not integers, or probabilities of
        a task that is not multiclass or has a focal factor.

    >>> labels, mask = jnp.array([1.0, jnp.nan]), jnp.array([True, False])
    >>> values(tasks.Task("toxic", "binary"), jnp.array([[0.0], [jnp.inf]]), labels, mask)
    Array([0.6931472, 0. ], dtype=float32)
    """
    if outputs.shape[-1] != task.outputs:
        raise ValueError(f'task "{task.name}": outputs of width {outputs.shape[-1]}: must be {task.outputs}')
    if task.shape:
        flat = [a.reshape(-1, *a.shape[1 + len(task.shape) :]) for a in (outputs, labels, mask)]
        each, there = _present(task, *flat).reshape(len(mask), -1), mask.reshape(len(mask), -1)
        return each.sum(axis=1) / jnp.maximum(there.sum(axis=1), 1)
    return _present(task, outputs, labels, mask)


def _present(task: tasks.Task, outputs: Array, labels: Array, mask: Array) -> Array:
    """Return a loss a label, zero where it is missing."""
    soft = labels.ndim == 2
    if soft and task.labels != "ids":
        raise ValueError(f'task "{task.name}": labels {labels.shape}: must be one number an example')
    if task.labels == "ids" and not soft and not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f'task "{task.name}": class ids of type {labels.dtype}: must be integers')
    # The double `where`: a missing slot is made harmless before the loss, or its gradient would be 0 · NaN;
    # and its loss is dropped after, for a harmless slot still has one.
    z = jnp.where(mask[:, None], outputs, 0).astype(jnp.promote_types(outputs.dtype, jnp.float32))
    y = jnp.where(mask[:, None] if soft else mask, labels, 0)
    if task.labels == "ids" and not soft:
        y = y.astype(jnp.int32)
    found = LOSSES[loss_of(task)].values(task, z, y)
    if found.shape != mask.shape:
        raise ValueError(f'loss "{loss_of(task)}": gives {found.shape}: must be {mask.shape}, a number a label')
    return jnp.where(mask, found, 0)


def linked(task: tasks.Task, outputs: Float[Array, "n *shape outputs"]) -> Float[Array, "n *shape linked"]:
    """Return a head's outputs as metrics take them, by the link of the task's loss: logits, or predictions.

    >>> float(linked(tasks.Task("toxic", "binary"), jnp.array([[0.5]]))[0, 0])
    0.5
    """
    link = LOSSES[loss_of(task)].link
    if link is None or not task.shape:
        return outputs if link is None else link(outputs)
    found = link(outputs.reshape(-1, outputs.shape[-1]))
    return found.reshape(*outputs.shape[:-1], found.shape[-1])


def registered(of: Iterable[tasks.Task]) -> tuple[Loss, ...]:
    """Return the losses of tasks that a config registered; each is tried out on shapes.

    Raises:
      ValueError: for a loss that cannot be used, or that gives anything but a number a label.

    >>> registered([tasks.Task("toxic", "binary")])
    ()
    """
    named = [task for task in of if registers(task)]
    for task in named:
        shapes = ((2, *task.shape, task.outputs), jnp.float32), ((2, *task.shape), jnp.bool)
        outputs, mask = (jax.ShapeDtypeStruct(*of) for of in shapes)
        labels = jax.ShapeDtypeStruct(mask.shape, jnp.int32 if task.labels == "ids" else jnp.float32)
        with tried(f'loss "{loss_of(task)}"'):
            jax.eval_shape(functools.partial(values, task), outputs, labels, mask)
            found = jax.eval_shape(functools.partial(linked, task), outputs)
        wide = {"binary": 1, "ids": task.num_classes}.get(task.labels, found.shape[-1])
        if found.shape != (*mask.shape, wide):
            raise ValueError(
                f'task "{task.name}": loss "{loss_of(task)}" and its link give metrics {found.shape}: must be '
                f"{(*mask.shape, wide)}"
            )
    return tuple(LOSSES[loss_of(task)] for task in named)


def registers(task: tasks.Task) -> bool:
    """Return whether a task's loss is one that a config registers.

    >>> registers(tasks.Task("toxic", "binary"))
    False
    """
    return loss_of(task) not in _OURS


def loss_of(task: tasks.Task) -> str:
    """Return the name of a task's loss.

    >>> loss_of(tasks.Task("toxic", "binary"))
    'logistic'
    """
    return task.loss or tasks.KINDS[task.kind].losses[0]
