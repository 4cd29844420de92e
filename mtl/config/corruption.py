"""What a config says of labels hidden, skewed or made wrong, checked and written in one way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mtl.config.fields import Flat
from mtl.config.problems import ConfigError
from mtl.ranges import finite
from mtl.tasks import Task, suggest

#: What labels are, by the kind of task that is best known for them.
_NAMES = {"binary": "binary", "ids": "multiclass", "numbers": "regression"}


def corruption(flat: Flat, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return the fields of the resolved data section that corrupt labels (see ``mtl.data.corrupt.split``), checked.

    What hides nothing is not stated, so that a config without any of this has the hash it always had, and rates
    are stated for each task, so that one study has one spelling.

    Args:
      flat: the config's fields.
      tasks: the trial's tasks.

    Raises:
      ConfigError: for a task that is not the trial's, a rate that cannot be, or a rate without a way to hide.

    >>> from mtl.config import default, flatten, override
    >>> flat = override(flatten(default()), {"data.hide": "at_random", "data.hide_rate": 0.5})
    >>> corruption(flat, [Task("even", "binary")])
    {'hide': 'at_random', 'hide_rates': {'even': 0.5}}
    """
    by_name = {task.name: task for task in tasks}
    found = _ways(flat, by_name)
    noise = _noise(flat, by_name)
    if noise:
        found["label_noise"] = noise
        if flat["data.label_noise_asymmetry"]:
            found["label_noise_asymmetry"] = flat["data.label_noise_asymmetry"]
    shares = {}
    for name, share in _per_task(flat, "imbalance", by_name).items():
        _kind(by_name[name], ("binary",), f"imbalance.{name} = {share!r}")
        shares[name] = _number(share, f"imbalance.{name}", 0.0, 1.0, open_ends=True)
    if shares:
        found["imbalance"] = shares
    if found and flat["data.hide_in_validation"]:
        found["hide_in_validation"] = True
    return found


def _ways(flat: Flat, tasks: Mapping[str, Task]) -> dict[str, Any]:
    way, rate, skew = flat["data.hide"], flat["data.hide_rate"], flat["data.hide_skew"]
    given = _per_task(flat, "hide_rates", tasks)
    if not way:
        for field, value in (("hide_rate", rate), ("hide_rates", given)):
            if value:
                raise ConfigError(f"config.data.{field} = {value!r}: hides nothing without a way: set data.hide too")
        return {}
    if rate and given:
        raise ConfigError(f"config.data.hide_rate = {rate}: and hide_rates is given too: set one of them")
    if not rate and not given:
        field = "hide_rates" if way == "by_class" else "hide_rate"
        raise ConfigError(f'config.data.hide = "{way}": hides nothing at rate 0: set data.{field}, or hide = ""')
    if way == "one_task_each":
        if given:
            raise ConfigError(f"config.data.hide_rates = {given!r}: is not for one_task_each: set hide_rate")
        return {"hide": way, "hide_rate": rate}
    if way == "by_class":
        if rate:
            raise ConfigError(f"config.data.hide_rate = {rate}: is not for by_class: set hide_rates.TASK, one a class")
        rates = {name: _by_class(tasks[name], value) for name, value in given.items()}
        return {"hide": way, "hide_rates": rates} if any(map(any, rates.values())) else {}
    most = 1.0 / (1.0 + abs(skew)) if way == "by_rank" else 1.0
    chosen: Mapping[str, Any] = given
    if not given:
        fits = {"positive_only": lambda t: _is(t, "binary"), "by_rank": lambda t: not t.shape}.get(way, lambda t: True)
        chosen = {name: rate for name, task in tasks.items() if fits(task)}
        if not chosen:
            raise ConfigError(f'config.data.hide = "{way}": no task is binary: choose another way')
        _number(rate, "hide_rate", 0.0, most)
    right = {"positive_only": ("binary",), "by_rank": tuple(_NAMES)}.get(way, ())
    for name in given if right else ():
        _kind(tasks[name], right, f'hide = "{way}" and hide_rates.{name}')
    numbers = {name: _number(value, f"hide_rates.{name}", 0.0, most) for name, value in chosen.items()}
    numbers = {name: value for name, value in numbers.items() if value}
    if not numbers:
        return {}
    return {"hide": way, "hide_rates": numbers, **({"hide_skew": skew} if way == "by_rank" else {})}


def _by_class(task: Task, value: Any) -> list[float]:
    _kind(task, ("binary", "ids"), f'hide = "by_class" and hide_rates.{task.name}')
    if not isinstance(value, (tuple, list)) or len(value) != task.classes:
        raise ConfigError(f"config.data.hide_rates.{task.name} = {value!r}: must be {task.classes} rates, one a class")
    return [_number(v, f"hide_rates.{task.name}", 0.0, 1.0) for v in value]


def _noise(flat: Flat, tasks: Mapping[str, Task]) -> dict[str, float]:
    asymmetry, found = flat["data.label_noise_asymmetry"], {}
    for name, value in _per_task(flat, "label_noise", tasks).items():
        _kind(tasks[name], tuple(_NAMES), f"label_noise.{name} = {value!r}")
        most = {"binary": 1.0 / (1.0 + abs(asymmetry)), "ids": 1.0, "numbers": math.inf}[tasks[name].labels]
        found[name] = _number(value, f"label_noise.{name}", 0.0, most)
    if asymmetry and not any(_is(tasks[name], "binary") for name in found):
        raise ConfigError(
            f"config.data.label_noise_asymmetry = {asymmetry}: is of binary tasks, and label_noise names none"
        )
    return {name: rate for name, rate in found.items() if rate}


def _per_task(flat: Flat, field: str, tasks: Mapping[str, Task]) -> dict[str, Any]:
    given = dict(flat[f"data.{field}"])
    for name in given:
        if name not in tasks:
            raise ConfigError(
                f'config.data.{field}.{name}: "{name}" is no source and not the target: {suggest(str(name), tasks)}'
            )
    return given


def _number(value: Any, field: str, low: float, high: float, open_ends: bool = False) -> float:
    if finite(value) and (low < value < high if open_ends else low <= value <= high):
        return float(value)
    to = "between 0 and 1, both excluded" if open_ends else f"a number from {low:g} to {high:.4g}"
    raise ConfigError(f"config.data.{field} = {value!r}: must be {to if high < math.inf else 'finite, at least 0'}")


def _is(task: Task, labels: str) -> bool:
    """Return whether a task has one label an example, and of what."""
    return task.labels == labels and not task.shape


def _kind(task: Task, right: tuple[str, ...], what: str) -> None:
    if not any(_is(task, labels) for labels in right):
        names = [_NAMES[labels] for labels in right]
        raise ConfigError(f"config.data.{what}: {task.name} is {task.kind}: must be {' or '.join(names)}")
