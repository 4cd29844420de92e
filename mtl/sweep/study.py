"""A study in its work directory: what a sweep's trials are, which are missing, and how the source's rate is tuned."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl.config import ConfigError, Flat, Trial, canonical, check, override, resolve
from mtl.config.fields import coerce
from mtl.regimes import judges
from mtl.sweep.documents import identifier
from mtl.sweep.expand import Changes
from mtl.sweep.fingerprint import Fingerprint, name_of
from mtl.sweep.labelled import check_judged, check_labels, judged
from mtl.sweep.plan import Plan, fingerprint_of, load_table, split_key, split_of
from mtl.sweep.store import StoreError, Workdir

#: Base fields that may differ between runs of one sweep: they do not decide any trial's numbers.
_FREE_TO_CHANGE = (
    "report.question",
    "report.margin",
    "report.baseline",
    "report.notes",
    "tune.seeds",
    "tune.source_lr",
)


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
      study: the study's name.
      name: the sweep's name.
      base: the fields of the config that the sweep's changes are applied to.
      members: the trials.
    """

    study: str
    name: str
    base: Flat
    members: tuple[Member, ...]


def make_sweep(name: str, base: Flat, entries: Sequence[Changes]) -> Sweep:
    """Return an expanded sweep, every trial resolved and checked.

    Raises:
      ConfigError: for a change that cannot be; naming the field, the value and what would be right.
      StoreError: for a name that files cannot have.
    """
    identifier(name)  # Tables and figures are named after it.
    members: list[Member] = []
    seen: dict[str, Changes] = {}
    for changes in entries:
        flat = override(base, changes)
        trial = resolve(flat, load_table(flat["data.name"], flat["data.options"]))
        digest = trial.hash
        if digest in seen:
            raise ConfigError(f"sweep {name}: {seen[digest]} and {changes} are the same trial: drop one of them")
        seen[digest] = changes
        members.append(Member(changes, trial))
    return Sweep(base["name"], name, base, tuple(members))


def settle(base: Flat, entries: Sequence[Changes], question: str = "") -> tuple[Flat, list[Changes]]:
    """Return the base and the changes of a sweep, with what it says of its data moved into the base.

    A field of ``data`` (but for the target size) that every entry changes to the same value is not an axis of the
    sweep: it says what the sweep is about, and belongs to its base config.

    Args:
      base: the fields of the config.
      entries: the sweep's changes.
      question: what the sweep asks, unless the config says it.

    Raises:
      ConfigError: if the sweep changes another field of ``data`` between trials: validation chooses between what is
        neither regime, size nor replicate, and must not choose the question.
    """
    about = {}
    for key in entries[0]:
        if key.startswith("data.") and key != "data.target_size":
            values = {canonical(e[key]) if key in e else None for e in entries}
            if len(values) == 1:
                about[key] = entries[0][key]
    if question and not base["report.question"]:
        about["report.question"] = question
    left = {k for e in entries for k in e} - about.keys()
    for key in sorted(left):
        if key.startswith("data.") and key != "data.target_size":
            raise ConfigError(
                f"the sweep changes {key} between trials: it is about one data set; write a sweep for each"
            )
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
    found = []
    for rate in rates:
        for seed in base["tune.seeds"]:
            flat = override(base, {"regime": "source", "source_lr": float(rate), "seed": seed, "save_model": False})
            found.append((float(rate), resolve(flat, load_table(flat["data.name"], flat["data.options"]))))
    return found


def check_choices(sweep: Sweep, pairs: Sequence[tuple[float, Trial]], trials: Sequence[Trial]) -> None:
    """Check that every split has the labels that training, selecting and tuning go by, of every replicate.

    Args:
      sweep: the expanded sweep.
      pairs: the trials that tune its source's rate.
      trials: those of both that are still to be run.

    Raises:
      ConfigError: if not; before anything runs.
    """
    todo = {t.hash for t in trials}
    cells: dict[str, list[Member]] = {}
    for m in sweep.members:
        c = m.trial.config
        cells.setdefault(canonical([c["regime"], c["data"]["target_size"], c["seed"]]), []).append(m)
    deciding = [(t, "config.tune.source_lr", "one source_lr") for _, t in pairs]
    for members in cells.values():
        fields = {k for m in members for k in m.changes} - {"regime", "data.target_size", "seed"}
        field = " and ".join(f"config.{name}" for name in sorted(fields)) if len(members) > 1 else ""
        deciding += [(m.trial, field, f"one value of {field}") for m in members]
    seen: set[Any] = set()
    for trial, field, instead in deciding:
        rules = tuple((p.tasks, p.select, p.solver) for p in trial.phases)
        key = (split_key(trial), rules, trial.config["ridge"]["choose"], field)
        if trial.hash in todo and key not in seen:
            seen.add(key)
            check_labels(trial, split_of(trial))
            if field:
                check_judged(trial, split_of(trial), len(trial.phases) - 1, field, instead)


def left_out(pairs: Sequence[tuple[float, Trial]], trials: Sequence[Trial]) -> list[str]:
    """Return a sentence for each task without a validation label, where others judge a phase that it is in.

    Args:
      pairs: the trials that tune the source's rate.
      trials: those of the sweep.
    """
    found: dict[str, set[int]] = {}
    seen: set[Any] = set()
    for trial, tuned in [*((t, True) for _, t in pairs), *((t, False) for t in trials)]:
        rules = tuple((p.tasks, p.select) for p in trial.phases)
        if (key := (split_key(trial), rules, tuned)) in seen:
            continue
        seen.add(key)
        for number, phase in enumerate(trial.phases):
            if tuned or phase.select == "best":
                there = judged(trial, split_of(trial), number)
                for task in set(judges(phase.tasks, trial.target)) - set(there):
                    found.setdefault(task, set()).add(trial.seed)
    return [
        f"{task} has no validation label in {len(seeds)} replicate{'s' * (len(seeds) > 1)}: there, source phases are "
        "judged by their other tasks"
        for task, seeds in sorted(found.items())
    ]


def tuned_rate(pairs: Iterable[tuple[float, Trial]], workdir: Workdir) -> tuple[float, dict[float, float]]:
    """Return (the rate with the least mean source validation loss, that loss of each rate).

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
        value = result["val_loss"] if result["status"] == "done" else None
        losses.setdefault(rate, []).append(math.inf if value is None else value)
    means = {rate: sum(v) / len(v) for rate, v in losses.items()}
    best = min(means, key=lambda r: (means[r], r))
    if not math.isfinite(means[best]):
        raise StoreError(
            f"the source's rate cannot be tuned: training diverged at every rate of {sorted(means)}: lower "
            "config.tune.source_lr"
        )
    return best, means


def missing(trials: Sequence[Trial], workdir: Workdir) -> list[Trial]:
    """Return the trials without a result, or whose files are damaged, or whose result is stale.

    Raises:
      ConfigError: for data or weights that are not there.
    """
    known: dict[tuple[str, str], Fingerprint] = {}
    workdir.expected |= {trial.hash: fingerprint_of(trial, workdir.sources, known) for trial in trials}
    return [trial for trial in trials if not workdir.complete(trial.hash)]


def record(
    workdir: Workdir, sweep: Sweep, tuning: dict[str, Any] | None, plan: Plan, warnings: Sequence[str] = ()
) -> None:
    """Write a sweep into ``study.json``: its base config, each trial's hash and changes, and what its plan comes to.

    Warnings about its data are written too, for the notes of its table.

    Raises:
      StoreError: if the sweep was made before from another base config.
    """
    study = workdir.open(sweep.study)
    base = {k: v for k, v in sweep.base.items()}
    known = study["sweeps"].get(sweep.name)
    if known:
        for field, value in known["base"].items():
            if field in _FREE_TO_CHANGE or field not in base:
                continue
            if canonical(coerce(field, value, base[field])) != canonical(base[field]):
                raise StoreError(
                    f"{workdir.path} holds sweep {sweep.name} with config.{field} = {value!r}, now {base[field]!r}: "
                    "choose another --workdir, or change it back"
                )
    study["sweeps"][sweep.name] = {
        "base": base,
        "tuning": tuning,
        "warnings": list(warnings),
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
    names = {m.trial.hash: name_of(fingerprints[m.trial.hash]) for m in sweep.members}
    trials = [{"hash": h, "changes": m.changes, "fingerprint": names[h]} for m in sweep.members for h in [m.trial.hash]]
    return {"fingerprints": {name: fingerprints[h] for h, name in names.items()}, "trials": trials}


def recorded(workdir: Workdir, sweep: Sweep) -> bool:
    """Return whether ``study.json`` holds a sweep as it is now expected, so that there is nothing to write."""
    known = workdir.open(sweep.study)["sweeps"].get(sweep.name)
    if not known:
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
