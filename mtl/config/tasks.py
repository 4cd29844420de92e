"""A study's tasks, sources and then targets, with the options that the config gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mtl.config.fields import Flat
from mtl.config.problems import ConfigError, refused
from mtl.config.targets import asked
from mtl.metrics import METRICS
from mtl.options import checked
from mtl.tasks import KINDS, Task, suggest

_known_tasks: dict[tuple[Any, ...], tuple[Task, ...]] = {}


def tasks_of(flat: Flat, available: Sequence[Task]) -> tuple[Task, ...]:
    """Return the study's tasks; looked at once for all trials that share them: there may be as many as tasks."""
    options = repr([flat[field] for field in ("task_options", "loss.weights", "metric", "data.name")])
    whose = tuple(flat["data.source"]), asked(flat), bool(flat["data.targets"])
    key = (options, whose, tuple(available), tuple(KINDS.values()), tuple(METRICS))
    if key not in _known_tasks:
        _known_tasks[key] = _tasks(flat, available)
    return _known_tasks[key]


def _tasks(flat: Flat, available: Sequence[Task]) -> tuple[Task, ...]:
    """Return the study's tasks (sources, then targets) with the options the config gives them."""
    by_name = {t.name: t for t in available}
    source, targets, data = flat["data.source"], asked(flat), flat["data.name"]
    of_targets = "targets" if flat["data.targets"] else "target"
    for field, name in [*(("source", s) for s in source), *((of_targets, t) for t in targets)]:
        if name not in by_name:
            raise ConfigError(f'config.data.{field}: no task "{name}" in {data}: {suggest(str(name), by_name)}')
    for target in targets:
        if target in source:
            raise ConfigError(f'config.data.target = "{target}": is also a source; leave it out of data.source')
    for field, names in (("source", source), ("targets", targets)):
        if len(set(names)) < len(names):
            raise ConfigError(f"config.data.{field} = {names}: names a task twice")
    names = (*source, *targets)
    for section in ("task_options", "loss.weights"):
        for name in flat[section]:
            if name not in by_name:
                raise ConfigError(f'config.{section}.{name}: no task "{name}": {suggest(name, by_name)}')
    for target in targets if flat["metric"] else ():
        if flat["metric"] not in KINDS[by_name[target].kind].metrics:
            raise ConfigError(
                f'config.metric = "{flat["metric"]}": the target {target} is {by_name[target].kind}: '
                + suggest(flat["metric"], KINDS[by_name[target].kind].metrics)
            )
    for task in map(by_name.__getitem__, names):
        if absent := next((m for m in KINDS[task.kind].metrics if m not in METRICS), ""):
            raise ConfigError(
                f'config.data: task "{task.name}" is of kind "{task.kind}": metric "{absent}" does not exist: '
                + suggest(absent, METRICS)
            )
    return tuple(_with_options(flat, by_name[name]) for name in names)


_TASK_OPTIONS = ("pos_weight", "label_smoothing", "focal_gamma", "loss")
NOT_TASK_OPTIONS = [f.name for f in dataclasses.fields(Task) if f.name not in _TASK_OPTIONS]


def _with_options(flat: Flat, task: Task) -> Task:
    options: Any = flat["task_options"].get(task.name, {})
    if not isinstance(options, Mapping):
        raise ConfigError(f"config.task_options.{task.name} = {options!r}: must be a dictionary of {_TASK_OPTIONS}")
    with refused():
        changes = checked(Task, options, f"task_options.{task.name}.", task.name, without=NOT_TASK_OPTIONS)
    if task.name in asked(flat) and flat["metric"]:
        changes["metric"] = flat["metric"]
    if task.name in flat["loss.weights"]:
        changes["weight"] = flat["loss.weights"][task.name]
    try:
        return dataclasses.replace(task, **changes) if changes else task
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.task_options or config.loss.weights: {error}") from None
