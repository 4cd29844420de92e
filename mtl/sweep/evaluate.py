"""What a trial came to: tested once, its model and its result written."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl import metrics, params
from mtl.config import Trial
from mtl.config.trial import has_several
from mtl.data import Table
from mtl.data.scaling import Scaling, coded, counts
from mtl.data.streamed import Streamed
from mtl.models import Model, numbered
from mtl.sweep.begun import COSTS, cost_of_weights
from mtl.sweep.fingerprint import Fingerprint
from mtl.sweep.labelled import judged, validated
from mtl.sweep.model_file import dump_model
from mtl.sweep.plan import Plan, scaling_of, split_of, table_of
from mtl.sweep.provenance import provenance
from mtl.sweep.shards import NewResult
from mtl.sweep.store import Workdir, now
from mtl.sweep.weights import brought, check_weights
from mtl.tasks import KINDS, OURS, Task
from mtl.train.compiled import Compiled
from mtl.train.dataset import device_inputs
from mtl.train.judge import OF_SCALED
from mtl.train.names import renamed
from mtl.train.placement import Placement, pad
from mtl.train.predict import predict
from mtl.train.program import Weights

#: Called with (work done, see ``work_of``; trials done; trials failed) since the last call.
Progress = Callable[[float, int, int], None]


@dataclasses.dataclass(frozen=True)
class PhaseResult:
    """A phase that has been trained: its weights, and what is said of it in results.

    Attributes:
      weights: what the next phase begins from.
      about: JSON-able facts: curves, cost, where it diverged.
    """

    weights: Weights
    about: dict[str, Any]


def evaluate(
    digests: Sequence[str],
    plan: Plan,
    done: dict[str, PhaseResult],
    workdir: Workdir,
    placement: Placement,
    progress: Progress,
) -> None:
    """Test the trials that have ended, once, and write their results."""
    for (model, tasks, scaled, *_), named in _groups(digests, plan).items():
        members, names = list(named), list(named.values())
        trials = [plan.trials[d] for d in members]
        chains = [[done[k] for k in plan.chains[d]] for d in members]
        scalings = [scaling_of(t) for t in trials]
        table = table_of(trials[0])
        weights = [chain[-1].weights for chain in chains]
        tested = _tested(model, tasks, names, weights, scaled, table, trials[0], scalings)
        held: list[NewResult] = []
        for digest, trial, chain, own, found in zip(members, trials, chains, scalings, tested, strict=True):
            folds = [[done[k].about for k in fold] for fold in plan.folds[digest]]
            result = _result(trial, [d.about for d in chain], folds, plan.fingerprints[digest], str(placement))
            result["cost"] |= dict.fromkeys(("parameters", "bytes")) if trial.reference else _size(chain[-1].weights)
            result["inputs"] = {**counts(table, own), "brought": brought(trial, table) is not None}
            predictions = {task: arrays for task, (_, arrays) in found.items()}
            finite = all(np.isfinite(arrays["outputs"]).all() for arrays in predictions.values())
            if not finite and result["status"] == "done":
                at = {"phase": len(chain) - 1, "step": chain[-1].about["steps"]}
                result |= {"status": "diverged", "diverged_at": at}
            if tasks and result["status"] == "done":
                result["test"] = {task: numbers for task, (numbers, _) in found.items()}
                result["metrics"] = _described(model.task(task).metric for task in tasks)
            kept = dump_model(trial, chain[-1].weights, table, own) if trial.config["save_model"] else None
            held.append(NewResult(clean(result), predictions, kept))
            if len(held) >= _TRIALS_TOGETHER or sum(new.bytes for new in held) >= _BYTES_TOGETHER:
                workdir.write_results(held)
                held = []
        workdir.write_results(held)
        progress(0.0, len(members), 0)


def _size(weights: Weights) -> dict[str, int]:
    """Return the size of a model: its parameters, and the bytes of these and of its batch statistics."""
    arrays = jax.tree.leaves((weights.params, weights.state))
    return {"parameters": params.count(weights.params), "bytes": sum(int(a.nbytes) for a in arrays)}


def _described(names: Iterable[str]) -> dict[str, Any]:
    """Return what tables say of metrics, so that they need none of what a config registers."""
    found = {}
    for name in names:
        metric = metrics.METRICS[name]
        about = {"higher_is_better": metric.higher_is_better, "points": metric.points, "range": list(metric.range)}
        found[name] = about | {"average": metric.each is not None}
    return found


def _groups(digests: Sequence[str], plan: Plan) -> dict[Any, dict[str, dict[str, str]]]:
    """Return the trials that are tested together, by (model, tasks, scaled or not, the rest that decides it).

    Of each, what its tasks are called: in the model they have numbers (see ``models.numbered``). A trial is tested on
    the tasks whose labels it saw and that have test labels. There are no more of them than have room for their maps,
    of dense tasks.
    """
    groups: dict[Any, dict[str, dict[str, str]]] = {}
    seen_before: collections.Counter[Any] = collections.Counter()
    for digest in digests:
        trial = plan.trials[digest]
        d = trial.config["data"]
        seen = {task for p in trial.phases for task in p.tasks}
        own, test = trial.model(), split_of(trial).test
        there = tuple(t.name for t in own.tasks if t.name in seen and test[t.name].any())
        model, numbers = numbered(own, table_of(trial).shape, there)
        tasks = tuple(sorted(numbers[t] for t in there))
        drawn, several = (d.get("split"), d["test_size"]), has_several(trial.config)
        about = str([d["name"], d["options"], trial.asked, drawn, d["source"] if several else there, trial.reference])
        scaled = plan.nodes[plan.chains[digest][-1]].stage.program.standardize
        maps = sum(4 * math.prod(t.shape) * t.outputs * int(test[t.name].sum()) for t in own.tasks if t.shape)
        key = (model, tasks, scaled, about)
        part = seen_before[key] // max(1, _BYTES_OF_MAPS // maps) if maps else 0
        seen_before[key] += 1
        groups.setdefault((*key, part), {})[digest] = {number: name for name, number in numbers.items()}
    return groups


#: Results are written together, as one shard, up to so many bytes or trials.
_BYTES_TOGETHER, _TRIALS_TOGETHER = 64 * 2**20, 64

#: What predictions of maps may take while trials are tested.
_BYTES_OF_MAPS = 256 * 2**20

#: One executable, whatever the number of trials.
_TESTED_TOGETHER = 64


def _tested(
    model: Model,
    tasks: Sequence[str],
    names: Sequence[Mapping[str, str]],
    weights: Sequence[Weights],
    scaled: bool,
    table: Table,
    trial: Trial,
    scalings: Sequence[Scaling],
) -> list[dict[str, _Tested]]:
    """Return what each trial comes to on each task, by name; of a regression in its own unit.

    The trunk is run once for all tasks that are tested on the same rows, and all of one kind are measured together.

    Args:
      model: whose tasks have numbers.
      tasks: numbers of those that are tested.
      names: of each trial what they are called.
      weights: of each trial.
      scaled: whether inputs are scaled.
      table: the data.
      trial: any of them.
      scalings: of each trial.
    """
    test, gaps = split_of(trial).test, has_several(trial.config)
    # Of several targets all rows of the test set, for all of them to be tested by one program; present labels count.
    some = {t: np.any(list(test.values()), axis=0) if gaps else test[names[0][t]] for t in tasks}
    on: dict[bytes, list[str]] = {}
    for t in tasks:
        on.setdefault(some[t].tobytes(), []).append(t)
    found: list[dict[str, _Tested]] = [{} for _ in weights]
    for same in on.values():
        rows, outputs = np.flatnonzero(some[same[0]]), dict[str, Any]()
        if trial.reference:
            each = [w.params["outputs"] for w in weights]
            outputs = {t: [o[of[t]][rows] for o, of in zip(each, names, strict=True)] for t in same}
        else:
            numbers = [{name: number for number, name in of.items()} for of in names]
            outputs |= predict(
                model,
                same,
                [renamed(w, of) for w, of in zip(weights, numbers, strict=True)],
                table.x if isinstance(table.x, Streamed) else device_inputs(table, scaled),
                [coded(table, s) for s in scalings] if scaled else None,
                rows=rows,
            )
        alike: dict[Task, list[tuple[int, str, np.ndarray]]] = {}
        for t in same:
            task = dataclasses.replace(model.task(t), name="any", weight=1.0)
            alike.setdefault(task, []).extend((i, of[t], outputs[t][i]) for i, of in enumerate(names))
        for task, pairs in alike.items():
            together = 1 if task.shape else _TESTED_TOGETHER  # A map has thousands of labels.
            for first in range(0, len(pairs), together):
                part = pairs[first : first + together]
                labels = [_labels(task, table, name, rows, test[name][rows]) for _, name, _ in part]
                own = [scalings[i].labels(name, y) for (i, name, _), y in zip(part, labels, strict=True)]
                padded = (pad(np.stack(a), together) for a in ([z for *_, z in part], own))
                values, scores = map(np.asarray, _test_fn(task, _metrics(task), gaps)(*padded))
                for k, (i, name, z) in enumerate(part):
                    told = _told(task, name, gaps, z, labels[k], values[k], scores[k], scalings[i])
                    here = test[name][rows]
                    # Rows of one group are alike: intervals resample groups.
                    groups = {} if table.groups is None else {"groups": table.groups[rows[here]]}
                    kept = {"outputs": told[1], "rows": rows.astype(np.int32), "labels": labels[k]}
                    arrays = {key: a[here] for key, a in kept.items()} | groups
                    found[i][name] = told[0], arrays | {"scores": told[2][here].astype(np.float64)}
    return found


#: The numbers of a task, and the arrays that are kept of its test set.
_Tested = tuple[dict[str, float], dict[str, np.ndarray]]


def _metrics(task: Task) -> tuple[metrics.Metric, ...]:
    return tuple(metrics.METRICS[name] for name in KINDS[task.kind].metrics)


def _labels(task: Task, table: Table, name: str, rows: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Return a task's labels of some rows; missing where they are not tested."""
    found, missing = table.labels[name][rows], -1 if task.labels == "ids" else np.nan
    if task.shape:
        found = np.where(table.positions[name][rows], found, missing)
    return np.where(np.expand_dims(here, tuple(range(1, found.ndim))), found, missing)


def _told(
    task: Task,
    name: str,
    gaps: bool,
    outputs: np.ndarray,
    labels: np.ndarray,
    values: np.ndarray,
    scores: np.ndarray,
    own: Scaling,
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Return (a task's metrics, its outputs, a score a row), of a regression in its own unit.

    Args:
      task: the task, whatever it is called.
      name: what it is called.
      gaps: whether labels may be missing.
      outputs: predictions of some rows, of scaled labels.
      labels: in their own unit; NaN or −1 where missing.
      values: of the kind's metrics, of scaled labels.
      scores: a row.
      own: the scaling.
    """
    every = _metrics(task)
    numbers = {m: float(v) for m, v in zip(KINDS[task.kind].metrics, values, strict=True)}
    own_outputs = own.outputs(name, outputs)
    if not task.scaled:
        return numbers, own_outputs, scores
    numbers |= {m: numbers[m] * own.squared(name) for m in _SQUARED if m in numbers}
    if not task.shape:
        here, scores = ~np.isnan(labels), np.full(len(labels), np.nan)
        scores[here] = regression_scores(task, own_outputs[here], labels[here])
    elif task.metric in _SQUARED:
        scores = scores * own.squared(name)
    if not set(numbers) <= set(OF_SCALED):  # What a config registers is of predictions in the labels' unit.
        raw = [np.asarray(a, np.float32)[None] for a in (own_outputs, labels)]
        again, raw_scores = (np.asarray(a)[0] for a in _test_fn(task, every, gaps)(*raw))
        numbers |= {m: float(v) for m, v in zip(numbers, again, strict=True) if m not in OF_SCALED}
        scores = scores if task.metric in OF_SCALED else raw_scores
    return numbers, own_outputs, scores


#: Metrics in the square of the labels' unit.
_SQUARED = ("squared_error", "pixel_squared_error")


@functools.lru_cache(maxsize=64)
def _test_fn(task: Task, every: tuple[metrics.Metric, ...], gaps: bool) -> Compiled:
    """Return the compiled ``(outputs, labels) -> (values of every metric, a score an example)`` of several trials.

    Labels may be missing where there are ``gaps``, and at positions of a dense task.
    """

    def one(args: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        outputs, labels = args
        mask = jnp.ones(labels.shape, bool)
        if task.shape or gaps:
            mask = labels >= 0 if task.labels == "ids" else ~jnp.isnan(labels)
        values = jnp.stack([metric.value(outputs, labels, mask) for metric in every])
        return values, metrics.per_example(task, task.metric, outputs, labels)

    return Compiled(lambda outputs, labels: jax.lax.map(one, (outputs, labels)))


def regression_scores(task: Task, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return one score a test example, whose mean is the metric of a regression in the unit of its labels.

    Args:
      task: the task.
      outputs: predictions [n, 1].
      labels: [n].
    """
    if task.metric == "squared_error":
        return np.square(outputs[:, 0].astype(np.float64) - labels)
    # In units of the labels' spread, as float32 computes: R² has no unit.
    mean, spread = labels.mean(), labels.std() if np.ptp(labels) > 0 else 1.0
    outputs, labels = (((a - mean) / spread).astype(np.float32) for a in (outputs, labels))
    return np.asarray(_per_example(task)(outputs, labels))


@functools.lru_cache(maxsize=64)
def _per_example(task: Task) -> Compiled:
    return Compiled(lambda outputs, labels: metrics.per_example(task, task.metric, outputs, labels))


def _result(
    trial: Trial,
    phases: list[dict[str, Any]],
    folds: list[list[dict[str, Any]]],
    planned: Fingerprint,
    placement: str,
) -> dict[str, Any]:
    """Return a trial's result, but for the test; it has diverged if it did on any fold."""
    check_weights(trial, planned)
    parts = [*zip(trial.folds, folds, strict=True), (trial, phases)]
    kept = [[_kept_score(part, i, p) for i, p in enumerate(chain)] for part, chain in parts]
    val_scores = [math.nan if (last := scores[-1]) is None else last for scores in kept[: len(folds)] or kept]
    diverged = next(
        (
            {"phase": i, "step": at}
            for (_, chain), scores in zip(parts, kept, strict=True)
            for i, p in enumerate(chain)
            if (at := _diverged_at(p, scores[i])) is not None
        ),
        None,
    )
    # Like shared source phases, what trained the loaded weights is charged to each trial that begins from them.
    before = cost_of_weights(trial.loads, planned["init"]["sha256"]) if trial.loads else None
    total = {name: math.fsum([p[name] for p in phases] + ([before[name]] if before else [])) for name in COSTS}
    source = [p["examples"] for p in phases if p["source_only"]] + ([before["examples"]] if before else [])
    seen = sorted({task for phase in trial.phases for task in phase.tasks})
    kinds = {t.kind: t.labels for t in trial.tasks if t.kind not in OURS}
    own = {p["key"] for p in phases}
    spare = {p["key"]: p for chain in folds for p in chain if p["key"] not in own}
    tuning = {f"fold_{name}": math.fsum(p[name] for p in spare.values()) for name in COSTS} if folds else {}
    return {
        "hash": trial.hash,
        "config": trial.config,
        "status": "diverged" if diverged else "done",
        "diverged_at": diverged,
        "val_score": math.fsum(val_scores) / len(val_scores),
        "phases": phases,
        "validated": validated(trial, [split_of(part) for part in trial.chosen_by]),
        "cost": total | {"rows": len(split_of(trial).rows(seen)), "source_examples": math.fsum(source)} | tuning,
        "init_cost": before,
        "fingerprint": planned,
        "placement": placement,
        **({"kinds": kinds} if kinds else {}),
        **provenance(),
        "finished": now(),
    }


def _kept_score(trial: Trial, number: int, phase: dict[str, Any]) -> float | None:
    """Return the validation score of the state that a phase kept (see ``phase.track_best``); nothing without labels."""
    curves = [phase["val_score"][task] for task in judged(trial, split_of(trial), number)]
    if not curves:
        return None
    scores = [math.fsum(at) / len(at) for at in zip(*curves, strict=True)]
    finite = [score for score in scores if math.isfinite(score)]
    return min(finite) if trial.phases[number].select == "best" and finite else scores[-1]


def _diverged_at(phase: dict[str, Any], kept: float | None) -> int | None:
    """Return the step at which a phase is known to have diverged: in training, or else when it was validated."""
    if phase["diverged_at"] >= 0:
        return int(phase["diverged_at"])
    return int(phase["evaluated_at"][-1]) if kept is not None and not math.isfinite(kept) else None


def clean(value: Any) -> Any:
    """Return a JSON value with null for numbers that are not finite, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    return value
