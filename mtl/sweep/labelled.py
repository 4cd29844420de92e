"""Whether there are the labels that training, selecting and tuning go by; asked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl import regimes
from mtl.config import ConfigError, Trial
from mtl.data import Split
from mtl.train.trial import Stage


def judged(trial: Trial, split: Split, number: int) -> tuple[str, ...]:
    """Return the tasks over whose validation score a phase's judgement is the mean: its judges that have a label.

    Args:
      trial: the resolved trial.
      split: its split.
      number: of the phase.
    """
    tasks = regimes.judges(trial.phases[number].tasks, trial.judging)
    return tuple(t for t in tasks if split.val[t].any())


def validated(trial: Trial, splits: Sequence[Split]) -> dict[str, list[int]]:
    """Return, for each task that judges a trial's last phase, its validation labels: how many, and of the rarest class.

    Args:
      trial: the resolved trial.
      splits: its split, or those of its folds; of several the least.
    """
    found: dict[str, list[int]] = {}
    for split in splits:
        for name in judged(trial, split, len(trial.phases) - 1):
            task, labels = next(t for t in trial.tasks if t.name == name), split.labels[name][split.val[name]]
            counts = [len(labels)]
            if task.classes and not task.shape:
                counts.append(int(np.bincount(labels.astype(int), minlength=task.classes).min()))
            found[name] = list(map(min, counts, found.get(name, counts)))
    return found


def check_labels(trial: Trial, split: Split) -> None:
    """Check that every phase of a trial has labels to train on and those that it is selected by, and the test its own.

    Raises:
      ConfigError: if not.
    """
    for target in (task for task in trial.tasks if task.name in trial.asked):
        if target.metric == "r2" and np.ptp(tested := split.labels[target.name][split.test[target.name]]) == 0:
            raise ConfigError(
                f'config.metric = "r2": all test labels of {target.name} are {tested[0]:g}, and it is undefined then: '
                'use "squared_error", or take a larger data.test_size'
            )
    by_validation = trial.config["ridge"]["choose"] == "validation"
    for number, phase in enumerate(trial.phases):
        for task in phase.tasks:
            if not split.train[task].any():
                raise ConfigError(f'config.data: task "{task}" has no label in train, and phase {number} trains on it')
            if phase.solver == "ridge" and by_validation and not split.val[task].any():
                what, instead = 'config.ridge.choose = "validation"', '"leave_one_out"'
                raise ConfigError(_unjudged(what, trial, (task,), instead))
        if phase.select == "best":
            check_judged(trial, split, number, 'config.select = "best"', '"last"')


def check_folds(trial: Trial, stages: Sequence[Stage]) -> None:
    """Check that no phase trains by validation labels: with folds, what is kept in the end has none.

    Raises:
      ConfigError: for a balancer and a closed form that do.
    """
    for stage in stages if trial.folds else ():
        b = stage.program.balancer
        if b is not None and "validation" in b.needs:
            field, value = "balancer.name", trial.config["balancer"]["name"]
        elif stage.program.solver.reads_validation():
            field, value = "ridge.choose", trial.config["ridge"]["choose"]
        else:
            continue
        raise ConfigError(
            f'config.{field} = "{value}": trains by validation labels, and with data.folds = '
            f"{trial.config['data']['folds']} all labels train in the end: must be another one, or data.folds = 0"
        )


def check_batches(trial: Trial, stages: Sequence[Stage]) -> None:
    """Check that a step needs no batch but its own: of inputs that are streamed, no other is at hand.

    Raises:
      ConfigError: for a balancer that needs further ones.
    """
    for stage in stages:
        b = stage.program.balancer
        if b is not None and (b.batches or "validation" in b.needs):
            raise ConfigError(
                f'config.balancer.name = "{trial.config["balancer"]["name"]}": needs batches beside the one of a step, '
                "and inputs are streamed: must be another one, or data in memory"
            )


def check_judged(trial: Trial, split: Split, number: int, what: str, instead: str) -> None:
    """Check that a phase has a validation label to be judged by.

    Args:
      trial: the resolved trial.
      split: its split.
      number: of the phase.
      what: the field and the value that validation decides for.
      instead: what does without.

    Raises:
      ConfigError: if it has none.
    """
    if not judged(trial, split, number):
        tasks = regimes.judges(trial.phases[number].tasks, trial.judging)
        raise ConfigError(_unjudged(what, trial, tasks, instead))


def _unjudged(what: str, trial: Trial, tasks: tuple[str, ...], instead: str) -> str:
    """Return the sentence for a judgement without labels."""
    data = trial.config["data"]
    of_targets = data.get("rows") == "shared" or not set(tasks).isdisjoint(trial.asked)
    fields = ("target_size", *(() if "fold" in data else ("val_fraction",))) if of_targets else ("source_val_size",)
    more = " or ".join(f"data.{field} = {data[field]}" for field in fields)
    hidden = "set data.hide_in_validation = False, or " if data.get("hide_in_validation") else ""
    none = f'task "{tasks[0]}" has no validation label' if len(tasks) == 1 else f"none of {', '.join(tasks)} has one"
    right = f"{hidden}raise {more}, or use {instead}"
    return f"{what}: goes by validation labels, and in replicate {trial.seed} {none}: {right}"
