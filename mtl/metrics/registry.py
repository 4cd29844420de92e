"""Metrics by name: of one task, of all tasks, for each example, and their average over tasks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtl.metrics import averages, dense, pooled, present, ranking
from mtl.metrics.present import Labels, Mask, Outputs, Value, Vector
from mtl.options import check_free, signature_of
from mtl.tasks import KINDS, Task, suggest


@dataclasses.dataclass(frozen=True)
class Metric:
    """What the name of a metric stands for.

    Attributes:
      value: ``(outputs, labels, mask, weights=None) -> value``, see the module ``mtl.metrics``.
      each: ``(outputs, labels) -> [n]``, what an average averages; none of what is no average.
      range: where its values can be.
      higher_is_better: whether more is better.
      points: whether tables show it in hundredths.
    """

    value: Callable[..., Array]
    each: Callable[[Array, Array], Array] | None = None
    range: tuple[float | int, float | int] = (0.0, 1.0)
    higher_is_better: bool = True
    points: bool = True


def _less(value: Callable[..., Array], each: Any = None, most: float = math.inf) -> Metric:
    return Metric(value, each, (0.0, most), higher_is_better=False, points=False)


#: Every metric by its name; ``tasks.KINDS`` says which kind of task can have which.
METRICS: dict[str, Metric] = {
    "accuracy": Metric(averages.accuracy, averages.accuracy_each),
    "auroc": Metric(ranking.auroc),
    "average_precision": Metric(ranking.average_precision),
    "brier": _less(averages.brier, averages.brier_each),
    "ece": _less(pooled.ece, most=1.0),
    "f1": Metric(pooled.f1),
    "iou": Metric(dense.iou),
    "log_loss": _less(averages.log_loss, averages.log_loss_each),
    "pixel_accuracy": Metric(dense.pixel_accuracy),
    "pixel_squared_error": _less(dense.pixel_squared_error),
    "r2": Metric(pooled.r2, range=(-math.inf, 1.0), points=False),
    "squared_error": _less(averages.squared_error, averages.squared_error_each),
}


def register(
    name: str,
    kinds: Sequence[str],
    range: tuple[float | int, float | int] = (-math.inf, math.inf),
    higher_is_better: bool = True,
    points: bool = False,
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Make a function ``(outputs, labels, mask, weights=None) -> value`` the metric of that name, as a decorator.

    Of a dense task it takes outputs [n, *shape, outputs], labels and mask [n, *shape], and weights [n] all the same. It
    must be a smooth function of the examples' weights, by which its intervals come (see ``per_example``). A config
    has it with ``c.metric = NAME``; tables of what was tested need no config.

    Args:
      name: what a config calls it.
      kinds: of the tasks that can have it.
      range, higher_is_better, points: see ``Metric``.

    Raises:
      ValueError: if another metric has that name, there is no such kind, or the function takes no weights.

    >>> @register("positive", ["binary"], range=(0, 1))
    ... def positive(outputs, labels, mask, weights=None):
    ...     return jnp.average(outputs[:, 0] > 0, weights=mask * (1.0 if weights is None else weights))
    >>> per_example(Task("t", "binary"), "positive", jnp.array([[1.0], [-1.0]]), jnp.array([0.0, 1.0])).tolist()
    [1.0, 0.0]
    >>> KINDS["binary"] = dataclasses.replace(KINDS["binary"], metrics=KINDS["binary"].metrics[:-1])  # Forgotten again.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f'metric "{name}": kinds = {tuple(kinds)}: {suggest(kind, KINDS)}')

    low, high = range
    if not low < high:
        raise ValueError(f'metric "{name}": range = {range}: must be (the least, the most)')

    def decorate(function: Callable[..., Array]) -> Callable[..., Array]:
        check_free(METRICS[name].value if name in METRICS else None, function, f'metric "{name}"')
        if "weights" not in signature_of(function):
            raise ValueError(f'metric "{name}": takes no weights of the examples: must, for its intervals come by them')
        METRICS[name] = Metric(function, None, (float(low), float(high)), higher_is_better, points)
        for kind in kinds:
            of = KINDS[kind]
            KINDS[kind] = dataclasses.replace(of, metrics=tuple(dict.fromkeys((*of.metrics, name))))
        return function

    return decorate


def metric(task: Task, name: str = "") -> Callable[..., Array]:
    """Return the function of one of the metrics that a task can have.

    Args:
      task: the task.
      name: the metric's name; the task's own metric if not given.

    Raises:
      ValueError: for a metric that does not exist or that a task of this kind cannot have.

    >>> metric(Task("toxic", "binary"), "auroc").__name__
    'auroc'
    """
    name = name or task.metric
    if name not in KINDS[task.kind].metrics:
        raise ValueError(
            f'task "{task.name}": a {task.kind} task cannot have metric "{name}": '
            + suggest(name, KINDS[task.kind].metrics)
        )
    return METRICS[name].value


def evaluate(
    tasks: Sequence[Task],
    outputs: Mapping[str, Outputs | dense.Outputs],
    labels: Mapping[str, Labels | dense.Labels],
    masks: Mapping[str, Mask | dense.Mask],
    names: Sequence[str] | None = None,
) -> dict[str, dict[str, Value]]:
    """Return the metrics of every task, each over its own present labels.

    Args:
      tasks: the tasks; the keys of the three mappings are their names.
      outputs, labels, masks: what the metrics take, of each task.
      names: the metrics wanted, of which a task gets those that its kind can have; all if not given.

    Returns:
      ``{task: {metric: value}}``, with NaN where a metric is undefined.

    Raises:
      ValueError: for a metric that none of the tasks can have, or a task without outputs, labels or mask.

    >>> task = Task("toxic", "binary")
    >>> data = {"toxic": jnp.array([[2.0], [-1.0]])}, {"toxic": jnp.array([1, jnp.nan])}
    >>> values = evaluate([task], *data, {"toxic": jnp.array([True, False])}, ["accuracy", "auroc"])
    >>> {name: float(value) for name, value in values["toxic"].items()}
    {'accuracy': 1.0, 'auroc': nan}
    """
    possible = {name for task in tasks for name in KINDS[task.kind].metrics}
    for name in names or ():
        if name not in possible:
            raise ValueError(f'metric "{name}": none of the tasks can have it: {suggest(name, possible)}')
    for what, given in (("outputs", outputs), ("labels", labels), ("masks", masks)):
        if absent := sorted({task.name for task in tasks} - given.keys()):
            raise ValueError(f'{what}: no task "{absent[0]}": {suggest(absent[0], given)}')
    return {
        task.name: {
            name: METRICS[name].value(outputs[task.name], labels[task.name], masks[task.name])
            for name in (KINDS[task.kind].metrics if names is None else names)
            if name in KINDS[task.kind].metrics
        }
        for task in tasks
    }


def macro(values: Float[Array, " k"]) -> tuple[Value, Int[Array, ""]]:
    """Return the mean of the metrics that are defined, and how many are not; say both.

    Args:
      values: one metric of k tasks, NaN where undefined.

    Returns:
      Their mean, NaN if none is defined; the number of NaNs.

    >>> mean, undefined = macro(jnp.array([0.5, jnp.nan, 1.0]))
    >>> float(mean), int(undefined)
    (0.75, 1)
    """
    defined = ~jnp.isnan(values)
    total = jnp.sum(values, where=defined)
    return present.defined_or_nan(total / defined.sum(), defined.any()), jnp.sum(~defined, dtype=jnp.int32)


def per_example(task: Task, name: str, outputs: Outputs | dense.Outputs, labels: Labels | dense.Labels) -> Vector:
    """Return one number for each example whose mean is the metric, for paired tests and bootstraps.

    What an average averages; of the other metrics the pseudo-values of the infinitesimal jackknife::

        ψ_i = θ + n · ∂θ/∂w_i   at equal weights w

    Their mean is θ, since a metric does not change when all weights are scaled, and the variance of that mean is the
    metric's to first order: of the area under the ROC curve it is exactly DeLong's.

    Args:
      task: the task.
      name: one of the task's metrics.
      outputs, labels: as ``accuracy``, ``squared_error`` and ``iou``; a missing label is NaN, or -1.

    Returns:
      The numbers, NaN where the label is missing, all NaN where the metric is undefined.

    Raises:
      ValueError: for a metric that the task cannot have.

    >>> task = Task("toxic", "binary")
    >>> per_example(task, "accuracy", jnp.array([[2.0], [2.0], [2.0]]), jnp.array([1, 0, jnp.nan])).tolist()
    [1.0, 0.0, nan]
    >>> per_example(task, "auroc", jnp.array([[2.0], [1.0], [0.0]]), jnp.array([1, 0, 1])).tolist()
    [1.25, 0.5, -0.25]

    Source: Jaeckel 1972; Efron 1982; DeLong, DeLong & Clarke-Pearson 1988.
    """
    of = metric(task, name)
    if (each := METRICS[name].each) is not None:
        return each(outputs, labels)
    mask = ~jnp.isnan(labels) if jnp.issubdtype(labels.dtype, jnp.floating) else labels >= 0
    there = mask.any(axis=tuple(range(1, mask.ndim)))
    w = there.astype(jnp.float32)
    value, slope = jax.value_and_grad(lambda w: of(outputs, labels, mask, w))(w)
    return jnp.where(there & ~jnp.isnan(value), value + w.sum() * slope, jnp.nan)
