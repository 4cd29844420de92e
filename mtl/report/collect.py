"""From a work directory to the scores of a sweep: the tuned trials, aligned so that everything can be paired."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl import regimes
from mtl.config import augmentation, canonical
from mtl.config.trial import asked_of, has_several
from mtl.hypothesis import hypothesis_of
from mtl.report.analysis import Cost, Scores, Sizes
from mtl.report.begun import begun_notes
from mtl.report.corruption import corruption_notes
from mtl.report.made_by import differing
from mtl.report.phrases import join
from mtl.report.training import few_validated, overfitted, unconverged
from mtl.sweep.chosen import REPLICATE, TARGET, axes, candidates, choose, level, order, row_name, tuned
from mtl.sweep.fingerprint import stale_sentences
from mtl.sweep.store import NoResultError, StoreError, Workdir
from mtl.tasks import suggest

#: A table has room for each regime at each size in each replicate. A sweep may leave cells out, but one that leaves out
#: nearly all asks for memory that none of its trials has earned.
_CELLS, _CELLS_A_TRIAL = 10_000, 10


def collect(workdir: Workdir, sweep: str, task: str = "") -> Scores:
    """Return the scores of a sweep, of one target.

    Within each replicate, regime and size validation chooses (see `mtl.sweep.chosen.choose`), and only what it chose is
    read. Where a candidate has no result the replicate counts as missing; if all diverged it failed.

    Args:
      workdir: the work directory.
      sweep: the sweep's name.
      task: of several targets, the one; its networks are those for it alone, or else those for all.

    Raises:
      StoreError: if there is no such sweep, or results that must not be mixed.
      NoResultError: if no cell is complete.
    """
    study = workdir.study()
    if sweep not in study["sweeps"]:
        raise StoreError(f"--sweep={sweep}: {workdir.path} has no such sweep: {suggest(sweep, study['sweeps'])}")
    entry = study["sweeps"][sweep]
    base = entry["base"]
    trials = [t["changes"] for t in entry["trials"]]
    row_field, column_field, *_ = axes(base)
    rows = list(dict.fromkeys(level(base, t, row_field) for t in trials))
    columns, seeds = (list({level(base, t, field) for t in trials}) for field in (column_field, REPLICATE))
    of_labels = column_field == Sizes.field
    for column in columns:
        if isinstance(column, str) or column < 0 or (of_labels and column == 0):
            right = "more than 0" if of_labels else "a number, at least 0"
            raise StoreError(f"{workdir.study_file} names a {column_field} of {column}: must be {right}")
    columns, seeds = sorted(columns), sorted(seeds)
    names = {row: row_name(row_field, row) for row in rows}
    shape = (len(rows), len(columns), len(seeds))
    if math.prod(shape) > max(_CELLS, _CELLS_A_TRIAL * len(trials)):
        raise StoreError(
            f"{workdir.study_file}: sweep {sweep} names {shape[0]:,} regimes, {shape[1]:,} target sizes and "
            f"{shape[2]:,} replicates for {len(trials):,} trials: a table of it would be all but empty; make "
            "it several sweeps"
        )
    fields, cells = tuned(entry), candidates(workdir, entry)
    results = {t["hash"]: result for found in cells.values() for t, result in found}
    done = [result for t in entry["trials"] if (result := results[t["hash"]]) is not None]
    _refuse_mixtures(workdir, sweep, done)
    tested = [r for r in done if (task or asked_of(r["config"])[0]) in r.get("test", {})]
    if not tested:
        raise NoResultError(_nothing(workdir, sweep, results))
    task = task or asked_of(tested[0]["config"])[0]
    spec = next(t for t in tested[0]["config"]["tasks"] if t["name"] == task)
    metric = tested[0]["metrics"][spec["metric"]]
    joint = base[TARGET]  # As of today's question; of several targets it is empty.
    missing, failed, unfinished, overdone = (np.zeros(shape[:2], int) for _ in range(4))
    few: set[float] = set()
    chosen = np.full(shape, np.nan)
    values: np.ndarray | None = None
    first: Mapping[str, np.ndarray] = {}
    costs: dict[str, dict[Any, list[Mapping[str, Any]]]] = {row: {} for row in rows}
    for g, row in enumerate(rows):
        for s, column in enumerate(columns):
            for r, replicate in enumerate(seeds):
                found = cells.get((row, column, replicate, task), cells.get((row, column, replicate, joint), []))
                pick = choose(found, fields)
                if pick is not None and task not in pick[1].get("test", {}):  # Its networks are for other targets.
                    missing[g, s] += 1
                    continue
                if pick is None:
                    absent = [t for t, result in found if result is None]
                    missing[g, s] += 1
                    crashed = any(workdir.failure(t["hash"]) is not None for t in absent)
                    failed[g, s] += int(crashed or (bool(found) and not absent))
                    continue
                best, result = pick
                arrays = workdir.predictions(best["hash"], task)
                first = first or arrays
                _refuse_other_examples(workdir, sweep, first, arrays)
                if values is None:
                    values = np.full((*shape, len(arrays["scores"])), np.nan)
                values[g, s, r] = arrays["scores"]
                costs[row].setdefault(replicate, []).append(result["cost"])
                unfinished[g, s] += unconverged(result)
                overdone[g, s] += overfitted(result)
                if few_validated(result, task):
                    few.add(float(column))
                if len(fields) == 1 and isinstance(value := best["changes"].get(fields[0]), (int, float)):
                    chosen[g, s, r] = value
    if values is None:
        raise NoResultError(_nothing(workdir, sweep, results))
    stated, own = hypothesis_of(base), base.get("regimes", {})
    known = {name: _regime(name, own) for name in names.values()}
    return Scores(
        study=study["study"],
        sweep=sweep,
        question=base["report.question"] or _question(base, sweep),
        notes=_notes(entry, tested[0], task, fields, _changed_notes(tested), first.get("groups")),
        metric=spec["metric"],
        higher_is_better=metric["higher_is_better"],
        unit=100.0 if metric["points"] else 1.0,
        bounds=_bounds(*metric["range"]),
        regimes=tuple(names.values()),
        sizes=Sizes.of(column_field, map(float, columns)),
        replicates=tuple(int(r) for r in seeds),
        row=row_field.rpartition(".")[2],
        looks=int(base.get("report.looks", 1)),
        values=values,
        missing=missing,
        failed=failed,
        chosen=chosen,
        baseline=base["report.baseline"],
        margin=float(base["report.margin"]),
        cost={name: _mean_cost(list(costs[row].values())) for row, name in names.items()},
        controls=tuple(
            name for name, regime in known.items() if regime is not None and (regime.control or regime.reference)
        ),
        data_notes=(
            *begun_notes(done),
            *dict.fromkeys(note for r in tested for note in corruption_notes(r["config"]["data"])),
            *(f"Warning: {said}" for said in (*entry.get("warnings", ()), *differing(done))),
        ),
        groups=first.get("groups"),
        rarer=_rarer(first["labels"]),
        task=task,
        rows=first["rows"],
        unconverged=unfinished,
        overfitted=overdone,
        few_validated=tuple(sorted(few)),
        hypothesis=None if stated is None else stated._replace(late=entry.get("late", False)),
    )


def _rarer(labels: np.ndarray) -> int | None:
    """Return the number of test examples of the rarer class of a binary task; nothing for other tasks."""
    binary = labels.dtype == np.float32 and labels.ndim == 1
    return int(min((labels == c).sum() for c in (0, 1))) if binary else None


def _nothing(workdir: Workdir, sweep: str, results: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return the sentence for a sweep without a complete cell: is it not done yet, or did its trials fail?"""
    failed = [digest for digest, r in results.items() if r is None and workdir.failure(digest) is not None]
    diverged = [r for r in results.values() if r is not None and r["status"] != "done"]
    if stale := stale_sentences((workdir.stale[d] for d in results if d in workdir.stale), "run `mtl sweep` again"):
        return f"{workdir.path}: sweep {sweep} has no complete cell: {'; '.join(stale)}"
    if sum(r is None for r in results.values()) > len(failed):
        return f"{workdir.path}: sweep {sweep} has no complete cell yet: run `mtl sweep` to the end"
    if not failed and not diverged:
        return f"{workdir.path}: no trial of sweep {sweep} sees the target's labels: there is no table of it"
    return (
        f"{workdir.path}: there is no table of sweep {sweep}: of {len(results):,} trials {len(failed):,} failed and "
        f"{len(diverged):,} diverged, and no cell is complete"
    )


def _regime(name: str, own: Mapping[str, Any]) -> regimes.Regime | None:
    """Return a regime; nothing for one that a config registers, which is not at hand."""
    return regimes.get(name, own) if name in own or name.partition("@")[0] in {*regimes.REGIMES, *own} else None


def _word(field: str, value: Any) -> str:
    """Return a value that was tried, in words."""
    if field == "augment":
        return f"({augmentation.described(augmentation.parse(value))})" if value else "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _changed_notes(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence on images changed at random; none if no phase changes any."""
    phases = [p for r in results for p in r["config"]["phases"]]
    found = {canonical(p["augment"]): p["augment"] for p in phases if "augment" in p}
    if not found:
        return []
    several = len(found) > 1 or not all("augment" in p for p in phases)
    listed = "; or ".join(augmentation.described(augmentation.parse(spec)) for spec in found.values())
    return [f"Training images are changed at random{' in some phases' * several}: {listed}."]


def _refuse_mixtures(workdir: Workdir, sweep: str, done: Sequence[Mapping[str, Any]]) -> None:
    for field, what in (
        ("placement", "placements"),
        ("backend", "backends"),
    ):
        found = sorted({str(r[field]) for r in done})
        if len(found) > 1:
            raise StoreError(
                f"{workdir.path}: the results of sweep {sweep} come from several {what} ({', '.join(found)}) and must "
                "not be mixed in one table: run the sweep in a new --workdir"
            )


def _refuse_other_examples(
    workdir: Workdir, sweep: str, one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]
) -> None:
    """Scores are paired example by example: the test rows of all trials, and their groups, must be the same."""
    if one.keys() != other.keys() or not all(np.array_equal(one[k], other[k]) for k in ("rows", "groups") if k in one):
        raise StoreError(
            f"{workdir.path}: the results of sweep {sweep} were tested on several sets of examples and must not be "
            "paired in one table: run the sweep in a new --workdir"
        )


def _bounds(low: float | int | None, high: float | int | None) -> tuple[float, float]:
    return (-math.inf if low is None else float(low)), (math.inf if high is None else float(high))


def _mean_cost(replicates: Sequence[Sequence[Mapping[str, Any]]]) -> Cost:
    """Return what a trial costs on average, and the range of its seconds, from the costs of each replicate's trials."""

    def mean(name: str, costs: Sequence[Mapping[str, Any]]) -> float:
        values = [c[name] for c in costs]  # A mean over those that are known would be of other trials.
        return math.fsum(values) / len(values) if values and None not in values else math.nan

    whole = [cost for costs in replicates for cost in costs]
    seconds = [mean("seconds", costs) for costs in replicates]
    # np.min, as min would pass over what is not known.
    low, high = (float(np.min(seconds)), float(np.max(seconds))) if len(seconds) > 1 else (math.nan, math.nan)
    known = ("examples", "flops", "seconds", "source_examples", "rows", "parameters", "bytes")
    same = {name: mean(name, whole) for name in known}
    return Cost(**same, seconds_low=low, seconds_high=high, updates=mean("steps", whole))


def _rounds(base: Mapping[str, Any]) -> str:
    steps = base.get("round_steps", 0)
    return f", rounds of {steps} steps at temperature {base['temperature']:g}" if steps else ", each task once a round"


def _question(base: Mapping[str, Any], sweep: str) -> str:
    source = ", ".join(base["data.source"]) or "nothing"
    n = "n" if Sizes.field in axes(base) else base[Sizes.field]
    if targets := base.get("data.targets"):
        rows = f"{n} rows that have labels of {len(targets)} targets"
        return f"{sweep}: with {rows}, one network for all or one for each?"
    return f"{sweep}: with {n} labels of {base['data.target']} and a source of {source}, what is best?"


def _test_set(data: Mapping[str, Any]) -> str:
    """Return what a trial's test set is, from its resolved data section."""
    if data.get("split") == "official":
        how_many = f"at most {data['test_size']:,} examples" if data["test_size"] else "all examples"
        return f"{how_many} of the data's own test part, fixed and stratified"
    scaffolds = " of whole scaffolds, the big ones left for training" if data.get("split") == "scaffold" else ""
    return f"{data['test_size']} fixed, stratified examples{scaffolds}"


def _notes(
    entry: Mapping[str, Any],
    result: Mapping[str, Any],
    task: str,
    fields: Sequence[str],
    changed: list[str],
    groups: np.ndarray | None,
) -> tuple[str, ...]:
    """Return what a reader of the table must know, from the config itself."""
    base, notes = entry["base"], []
    data = result["config"]["data"]
    batch = base["batch_size"]
    how = {
        "per_task": f"per_task ({batch} examples of each task in every batch)",
        "rows": f"rows ({batch} examples a batch, as the labels come)",
        "temperature": f"temperature {base['temperature']:g} ({batch} examples a batch)",
        "uniform": f"uniform ({batch} examples a batch, each of any task)",
        "one_task": f"one_task ({batch} examples of one task a batch{_rounds(base)})",
    }
    notes.append(
        f"Sampling in joint phases: {how[base['joint_sampling']]}; loss denominator: {base['loss.denominator']}."
    )
    notes += changed
    several = has_several(result["config"])
    counted = "labelled training and validation rows" if several else f"training and validation labels of {task}"
    shares = f"{1 - data['val_fraction']:.0%} and {data['val_fraction']:.0%}"
    if folds := data.get("folds", 0):
        often = f", {times} times over" if (times := data.get("fold_repeats", 1)) > 1 else ""
        shares = (
            f"each of {folds} folds validates once what the others train{often}; then all train, for the median of the "
            "steps that were best, and what the folds cost is told apart"
        )
    notes.append(f"n counts {counted} ({shares}); the test set is {_test_set(data)}, used once.")
    best = base["select"] == "best"
    early = f", fewer where {base['patience']} validations in a row were no better" if best and base["patience"] else ""
    kept = (
        "Of each phase the state that is best on validation is kept" if best else "Of each phase the last state is kept"
    )
    notes.append(f"All regimes have the same number of updates, those of source and target together{early}. {kept}.")
    inputs = result["inputs"]
    if inputs["scaled"]:
        others = ["regimes that begin from loaded weights, which bring their own"] if base["init.path"] else []
        if any(t["changes"].get("regime", base["regime"]) == "scratch_own_scale" for t in entry["trials"]):
            others.append("scratch_own_scale, by its own labelled rows")
        but = f", but for {join(others)}" if others else ""
        notes.append(
            f"{inputs['scaled']:,} of {inputs['all']:,} inputs are standardised once a replicate, by the training rows "
            f"of the source and the target pools, labelled or not: the same for every regime and n{but}."
        )
    elif inputs["measured"]:
        notes.append(f"Inputs are not standardised (data.normalize = {data['normalize']}).")
    for field in fields:
        tried = [t["changes"][field] for t in entry["trials"] if field in t["changes"]]
        listed = ", ".join(_word(field, v) for v in sorted({canonical(v): v for v in tried}.values(), key=order))
        how_chosen = f"by {'mean ' * bool(folds)}validation{' over the folds' * bool(folds)}"
        then = "" if folds else ", without refitting"
        notes.append(f"{field} is chosen from {listed} {how_chosen}, within each replicate and cell{then}.")
    if names := {t["changes"].get("regime", base["regime"]) for t in entry["trials"]} & set(regimes.REFERENCES):
        notes.append(
            f"{join(sorted(names))}: models of scikit-learn on the same inputs and all n labels, training and "
            "validation; settings by cross-validation inside them, by log loss or squared error; one each target."
        )
    if entry.get("tuning"):
        notes.append(f"source_lr = {entry['tuning']['source_lr']:g}, tuned once on source validation.")
    examples = "test examples"
    if groups is not None:
        examples = f"the {len(np.unique(groups)):,} groups of the {len(groups):,} test examples, each group as a whole"
    notes.append(
        "Source model, subset, split and initialisation vary with the replicate. Intervals: two-way bootstrap over "
        f"replicates and {examples}."
    )
    metric = next(t["metric"] for t in result["config"]["tasks"] if t["name"] == task)
    if not result["metrics"][metric]["average"]:
        notes.append(
            f"{metric} is no mean over examples: what an example contributes to it is taken to first order "
            "(infinitesimal jackknife; of auroc this is DeLong's variance)."
        )
    return (*notes, *base.get("report.notes", ()))
