"""Whether there are the labels that training, selecting and tuning go by; asked before anything runs."""

from __future__ import annotations

from collections.abc import Iterable

from mtl import regimes
from mtl.config import ConfigError, Trial, canonical
from mtl.data import Split
from mtl.sweep.expand import Changes
from mtl.sweep.plan import split_key, split_of


def judged(trial: Trial, split: Split, number: int) -> tuple[str, ...]:
    """Return the tasks over whose validation loss a phase's judgement is the mean: its judges that have a label.

    Args:
      trial: the resolved trial.
      split: its split.
      number: of the phase.
    """
    tasks = regimes.judges(trial.phases[number].tasks, trial.target)
    return tuple(t for t in tasks if split.val[t].any())


def check_labels(trials: Iterable[Trial]) -> None:
    """Check that data can be split as asked, and that every phase has labels to train and to be selected on.

    Raises:
      ConfigError: if not.
    """
    seen: set[object] = set()
    for trial in trials:
        choose = trial.config["ridge"]["choose"]
        # Trials of one phase list and one split config differ in nothing that is checked here.
        key = (split_key(trial), choose, tuple((p.tasks, p.select, p.solver) for p in trial.phases))
        if key in seen:
            continue
        seen.add(key)
        split = split_of(trial)
        for number, phase in enumerate(trial.phases):
            for task in phase.tasks:
                if not split.train[task].any():
                    raise ConfigError(
                        f'config.data: task "{task}" has no label in train, and phase {number} trains on it'
                    )
                if phase.solver == "ridge" and choose == "validation" and not split.val[task].any():
                    what = 'config.ridge.choose = "validation"'
                    raise ConfigError(_unjudged(what, trial, (task,), 'choose by "leave_one_out"'))
            if phase.select == "best":
                _check_judged(trial, number, 'config.select = "best"', 'select the "last" state')


def check_choice(trials: Iterable[Trial], field: str) -> None:
    """Check that validation can choose between trials that differ in a field.

    Args:
      trials: what it is to choose between.
      field: what they differ in.

    Raises:
      ConfigError: if the last phase of one has no validation label to be judged by.
    """
    seen: set[object] = set()
    for trial in trials:
        key = (split_key(trial), trial.phases[-1].tasks)
        if key not in seen:
            seen.add(key)
            _check_judged(trial, len(trial.phases) - 1, f"{field} is chosen by validation", f"set one {field}")


def check_choices(members: Iterable[tuple[Changes, Trial]]) -> None:
    """Check that validation can choose wherever a sweep has several candidates for a cell and replicate of its table.

    Raises:
      ConfigError: as ``check_choice``.
    """
    cells: dict[str, list[tuple[Changes, Trial]]] = {}
    for changes, trial in members:
        cell = [trial.config["regime"], trial.config["data"]["target_size"], trial.seed]
        cells.setdefault(canonical(cell), []).append((changes, trial))
    for candidates in cells.values():
        if len(candidates) > 1:
            fields = {k for changes, _ in candidates for k in changes} - {"regime", "data.target_size", "seed"}
            check_choice([trial for _, trial in candidates], "config." + " and config.".join(sorted(fields)))


def _check_judged(trial: Trial, number: int, what: str, instead: str) -> None:
    if not judged(trial, split_of(trial), number):
        tasks = regimes.judges(trial.phases[number].tasks, trial.target)
        raise ConfigError(_unjudged(what, trial, tasks, instead))


def _unjudged(what: str, trial: Trial, tasks: tuple[str, ...], instead: str) -> str:
    """Return the sentence for a judgement without labels."""
    data = trial.config["data"]
    fields = ["target_size", "val_fraction"] if trial.target in tasks else ["source_val_size"]
    more = " or ".join(f"data.{field} = {data[field]}" for field in fields)
    more += ", or set data.hide_in_validation = False" if data.get("hide_in_validation") else ""
    none = f'"{tasks[0]}" has no validation label' if len(tasks) == 1 else f"none of {', '.join(tasks)} has any"
    return f"{what}, and {none} in replicate {trial.seed}: raise {more}; or {instead}"
