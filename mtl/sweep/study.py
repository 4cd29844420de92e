"""A study in its work directory: what a sweep's trials are, which are missing, and how the source's rate is tuned."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl.config import ConfigError, Flat, Trial, canonical, check, override, refused
from mtl.config.fields import coerce
from mtl.config.reference import decides
from mtl.config.targets import settled
from mtl.data.describe import facts
from mtl.hypothesis import hypothesis_of
from mtl.regimes import get, judges
from mtl.sweep.chosen import axes, level, row_name
from mtl.sweep.documents import identifier
from mtl.sweep.evaluate import clean
from mtl.sweep.expand import Changes
from mtl.sweep.fingerprint import Fingerprint, name_of
from mtl.sweep.labelled import check_judged, check_labels, judged
from mtl.sweep.plan import Plan, fingerprint_of, labels_key, load_table, split_of, table_of, trial_of
from mtl.sweep.store import StoreError, Workdir

#: Sections of the base that may differ between runs of one sweep: they do not decide any trial's numbers.
_FREE_TO_CHANGE = ("report.", "tune.")

#: What a study states of its outcome before it runs.
_STATED = ("report.contrast", "report.falsifier", "report.margin")


@dataclasses.dataclass(frozen=True)
class Member:
    """A trial of a sweep.

    Attributes:
      changes: what the sweep changes for it.
      trial: the resolved trial.
    """

    changes: Changes
    trial: Trial


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep of a study, expanded.

    Attributes:
      name: the sweep's name.
      base: the fields of the config that the sweep's changes are applied to.
      members: the trials.
      pairs: the (rate, trial) pairs that tune the source's rate; empty if it is not tuned.
      tuning: what they came to; nothing while they are still to be run, or if there are none.
    """

    name: str
    base: Flat
    members: tuple[Member, ...]
    pairs: Sequence[tuple[float, Trial]] = ()
    tuning: dict[str, Any] | None = None

    @functools.cached_property
    def trials(self) -> list[Trial]:
        """The trials, resolved."""
        return [m.trial for m in self.members]


def make_sweep(
    name: str,
    base: Flat,
    entries: Sequence[Changes],
    pairs: Sequence[tuple[float, Trial]] = (),
    tuning: dict[str, Any] | None = None,
) -> Sweep:
    """Return an expanded sweep, every trial resolved and checked.

    Args:
      name: its name.
      base: the fields of the config.
      entries: the changes of each trial. What decides nothing about a reference is not tuned for it: it has one trial.
      pairs: the trials that tune the source's rate.
      tuning: what they came to; the rate that was best takes the place of the base's.

    Raises:
      ConfigError: for a change that cannot be; naming the field, the value and what would be right.
      StoreError: for a name that files cannot have.
    """
    identifier(name)  # Tables and figures are named after it.
    base, entries = of_targets(base, entries)
    _check_axes(name, base, entries)
    base = override(base, {"source_lr": tuning["source_lr"]}) if tuning else base
    members: dict[str, Member] = {}
    for changes in entries:
        trial = trial_of(override(base, changes))
        if trial.reference:
            changes = {field: value for field, value in changes.items() if decides(field)}
        elif (same := members.get(trial.hash)) is not None:
            raise ConfigError(f"sweep {name}: {same.changes} and {changes} are the same trial: drop one of them")
        members[trial.hash] = Member(changes, trial)
    return Sweep(name, base, tuple(members.values()), pairs, tuning)


def _check_axes(name: str, base: Flat, entries: Sequence[Changes]) -> None:
    """Check that columns are numbers, and that there are the rows and columns that the study's hypothesis is about.

    Raises:
      ConfigError: if not; before anything runs.
    """
    row, column, *_ = axes(base)
    rows = {row_name(row, level(base, changes, row)) for changes in entries}
    columns = {level(base, changes, column) for changes in entries}
    wrong = [value for value in columns if isinstance(value, str | bool) or value < 0]
    if wrong and column != "data.target_size":  # Which is checked as a field.
        raise ConfigError(
            f'config.report.columns = "{column}": sweep {name} has the value {wrong[0]}: must be numbers, at least 0'
        )
    stated = hypothesis_of(base)
    named = ((row, rows, (stated.first, stated.second)), (column, columns, stated.sizes)) if stated else ()
    for field, there, wanted in named:
        if absent := [value for value in wanted if value not in there]:
            raise ConfigError(
                f'config.report.contrast = "{base["report.contrast"]}": sweep {name} has no {field} '
                f"{str(absent[0]).removesuffix('.0')}: must be about what it has; a sweep may state its own"
            )


def of_targets(base: Flat, entries: Sequence[Changes]) -> tuple[Flat, list[Changes]]:
    """Return a base with nothing left open on targets, and the changes of each trial that they come to.

    Of several targets, a regime that ends on one has a trial for each, and one that trains jointly has one for all.
    """
    found = settled(base, load_table(base["data.name"], base["data.options"]).tasks)
    fields = ("data.targets", "data.rows", "joint_sampling", *(("data.target",) if base["data.targets"] else ()))
    base = override(base, {field: found[field] for field in fields})
    targets, every = base["data.targets"], []
    for changes in entries:
        flat = override(base, changes)
        with refused():
            each = bool(targets) and "data.target" not in changes and get(flat["regime"], flat["regimes"]).alone
        every += [{**changes, "data.target": target} for target in targets] if each else [changes]
    return override(base, {"data.target": ""}) if targets else base, every


def settle(base: Flat, entries: Sequence[Changes], question: str = "") -> tuple[Flat, list[Changes]]:
    """Return the base and the changes of a sweep, with what it says of its data and its report moved into the base.

    A field of ``data`` or ``report`` that is no axis of the table and that every entry changes to the same value says
    what the sweep is about, and belongs to its base config.

    Args:
      base: the fields of the config.
      entries: the sweep's changes.
      question: what the sweep asks, unless the config says it.

    Raises:
      ConfigError: if the sweep changes another such field between trials: validation chooses between what is neither
        row, column nor replicate, and must not choose the question.
    """
    about: Changes = {}
    fields = {k for e in entries for k in e if k.startswith(("data.", "report.")) or k == "regime"}
    for key in sorted(fields, key=lambda k: (not k.startswith("report."), k)):  # These say what is an axis.
        if key in axes({**base, **about})[:3]:
            continue
        if len({canonical(e[key]) if key in e else None for e in entries}) > 1:
            one = "question" if key.startswith("report.") else key if key == "regime" else "data set"
            raise ConfigError(f"the sweep changes {key} between trials: it is about one {one}; write a sweep for each")
        about[key] = entries[0][key]
    if question and not base["report.question"]:
        about.setdefault("report.question", question)
    return override(base, about), [{k: v for k, v in e.items() if k not in about} for e in entries]


def source_trials(base: Flat, entries: Sequence[Changes]) -> list[tuple[float, Trial]]:
    """Return the (rate, trial) pairs that tune a sweep's source rate, empty if it is not tuned.

    The source phase is trained for each candidate on the replicates ``tune.seeds``, which do not depend on how many
    replicates the sweep has: growing the sweep never changes the rate.

    Raises:
      ConfigError: if the sweep itself changes the source's rate, or what sources there are.
    """
    rates = base["tune.source_lr"]
    if not rates:
        return []
    changed = {key for entry in entries for key in entry}
    if "source_lr" in changed:
        raise ConfigError("config.tune.source_lr is set, and the sweep changes source_lr: do one of the two")
    for key in changed:
        if key.startswith(("data.", "model.", "optimizer.")) and key != "data.target_size":
            raise ConfigError(
                f"config.tune.source_lr is set, and the sweep changes {key}: one rate cannot suit all; "
                "make it two sweeps or set source_lr"
            )
    fixed = {"regime": "source", "save_model": False}
    return [
        (float(rate), trial_of(override(base, {**fixed, "source_lr": float(rate), "seed": seed})))
        for rate in rates
        for seed in base["tune.seeds"]
    ]


def check_choices(sweep: Sweep, there: Collection[str]) -> None:
    """Check that every split has the labels that training, selecting and tuning go by, of every replicate.

    Args:
      sweep: the expanded sweep.
      there: the hashes of the trials that have run.

    Raises:
      ConfigError: if not; before anything runs.
    """
    cells: dict[str, list[Member]] = {}
    for m in sweep.members:
        at = [level(sweep.base, m.changes, axis) for axis in axes(sweep.base)]
        cells.setdefault(canonical(at), []).append(m)
    deciding = [(t, "config.tune.source_lr", "one source_lr") for _, t in sweep.pairs]
    for members in cells.values():
        fields = {k for m in members for k in m.changes} - set(axes(sweep.base))
        field = " and ".join(f"config.{name}" for name in sorted(fields)) if len(members) > 1 else ""
        deciding += [(m.trial, field, f"one value of {field}") for m in members]
    seen: set[Any] = set()
    for trial, field, instead in deciding:
        key = (labels_key(trial), field)
        if trial.hash not in there and key not in seen:
            seen.add(key)
            for part in trial.chosen_by:
                check_labels(part, split_of(part))
                if field:
                    check_judged(part, split_of(part), len(part.phases) - 1, field, instead)


def left_out(sweep: Sweep) -> list[str]:
    """Return a sentence for each task without a validation label, where others judge a phase that it is in."""
    found: dict[str, set[int]] = {}
    judging = [*((t, True) for _, t in sweep.pairs), *((t, False) for t in sweep.trials)]
    for (_, tuned), trial in {(labels_key(t), tuned): t for t, tuned in judging}.items():
        for number, phase in enumerate(trial.phases):
            if tuned or phase.select == "best":
                for part in trial.chosen_by:
                    there = judged(part, split_of(part), number)
                    for task in set(judges(phase.tasks, trial.judging)) - set(there):
                        found.setdefault(task, set()).add(trial.seed)
    return [
        f"{task} has no validation label in {len(seeds)} replicate{'s' * (len(seeds) > 1)}: there, source phases are "
        "judged by their other tasks"
        for task, seeds in sorted(found.items())
    ]


def tuned_rate(pairs: Iterable[tuple[float, Trial]], workdir: Workdir) -> dict[str, Any]:
    """Return what ``study.json`` says: the rate with the least mean source validation score, and that of each rate.

    A rate with which any replicate diverged is not eligible.

    Raises:
      StoreError: if a trial is missing, or every rate diverged. Whether there is source validation was asked before
        anything ran, see ``check_choices``.
    """
    losses: dict[float, list[float]] = {}
    for rate, trial in pairs:
        result = workdir.result(trial.hash)
        if result is None:
            reason = workdir.failure(trial.hash) or "it was not run"
            raise StoreError(f"the source's rate cannot be tuned: the trial at rate {rate:g} is missing: {reason}")
        value = result["val_score"] if result["status"] == "done" else None
        losses.setdefault(rate, []).append(math.inf if value is None else value)
    means = {rate: sum(v) / len(v) for rate, v in losses.items()}
    best = min(means, key=lambda r: (means[r], r))
    if not math.isfinite(means[best]):
        raise StoreError(
            f"the source's rate cannot be tuned: training diverged at every rate of {sorted(means)}: lower "
            "config.tune.source_lr"
        )
    return {"source_lr": best, "val_score": clean({f"{rate:g}": mean for rate, mean in means.items()})}


def missing(trials: Sequence[Trial], workdir: Workdir) -> list[Trial]:
    """Return the trials without a result, or whose files are damaged, or whose result is stale.

    Raises:
      ConfigError: for data or weights that are not there.
    """
    workdir.expected |= {trial.hash: fingerprint_of(trial, workdir.sources) for trial in trials}
    return [trial for trial in trials if not workdir.complete(trial.hash)]


def record(workdir: Workdir, sweep: Sweep, plan: Plan, warnings: Sequence[str]) -> None:
    """Write a sweep into ``study.json``: its base config, each trial's hash and changes, and what its plan comes to.

    What its data are and warnings about them are written too, for its tables and its page.

    Raises:
      StoreError: if the sweep was made before from another base config.
    """
    base = sweep.base
    study = workdir.open(base["name"])
    known = study["sweeps"].get(sweep.name, {"base": {}})
    for field, value in known["base"].items():
        if field.startswith(_FREE_TO_CHANGE) or field not in base:
            continue
        if canonical(coerce(field, value, base[field])) != canonical(base[field]):
            raise StoreError(
                f"{workdir.path} holds sweep {sweep.name} with config.{field} = {value!r}, now {base[field]!r}: "
                "choose another --workdir, or change it back"
            )
    before, stated = known["base"], [base[field] for field in _STATED]
    changed = bool(before) and stated != [before.get(field) for field in _STATED]
    there = set(workdir.hashes())
    late = known.get("late", False) or (changed and any(t.hash in there for t in sweep.trials))
    study["sweeps"][sweep.name] = {
        "base": base,
        "late": late,
        "tuning": sweep.tuning,
        "warnings": list(warnings),
        "data": facts(table_of(sweep.trials[0])),
        "plan": {
            "programs": plan.programs(),
            "phases": len(plan.nodes),
            "steps": plan.steps(),
            "steps_unshared": plan.steps_unshared(),
        },
        **_listed(sweep, plan.fingerprints),
    }
    workdir.write_study(study)


def _listed(sweep: Sweep, fingerprints: Mapping[str, Fingerprint]) -> dict[str, Any]:
    """Return what ``study.json`` says of a sweep's trials; most of them share a fingerprint."""
    trials: list[dict[str, Any]] = [
        {"hash": h, "changes": m.changes, "fingerprint": name_of(fingerprints[h])}
        for m in sweep.members
        for h in [m.trial.hash]
    ]
    return {"fingerprints": {t["fingerprint"]: fingerprints[t["hash"]] for t in trials}, "trials": trials}


def recorded(workdir: Workdir, sweep: Sweep) -> bool:
    """Return whether ``study.json`` holds a sweep as it is now expected, so that there is nothing to write."""
    known = workdir.open(sweep.base["name"])["sweeps"].get(sweep.name)
    if not known or "data" not in known:  # Older studies do not describe their data.
        return False
    listed = _listed(sweep, workdir.expected)
    return canonical([known["base"], {k: known[k] for k in listed}]) == canonical([sweep.base, listed])


def record_run(workdir: Workdir, base: Flat, trial: Trial) -> None:
    """Write a single run into ``study.json``.

    Raises:
      StoreError: if the directory belongs to another study, or holds something else.
    """
    study = workdir.open(base["name"])
    study.setdefault("runs", {})[trial.hash] = {"base": base}
    workdir.write_study(study)


def check_base(flat: Flat) -> None:
    """Check a base config before anything is expanded.

    Raises:
      ConfigError: for a value that cannot be, or a study without a name.
    """
    check(flat)
    if not flat["name"]:
        raise ConfigError('config.name = "": give the study a name; a work directory belongs to one study')


def default_workdir(flat: Flat) -> Path:
    """Return ``runs/NAME``."""
    return Path("runs") / str(flat["name"])
