"""What a trial came to: tested once, its model and its result written."""

from __future__ import annotations

import dataclasses
import functools
import math
import platform
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl import metrics
from mtl.checkpoint import dump_tree
from mtl.config import Trial
from mtl.sweep.begun import COSTS, cost_of_weights
from mtl.sweep.labelled import judged
from mtl.sweep.plan import Plan, init_sha256, split_of, table_of
from mtl.sweep.store import FORMAT, NewResult, Workdir, code_version, now
from mtl.tasks import METRICS, Task
from mtl.train.compiled import Call, Compiled
from mtl.train.dataset import nothing, statistics
from mtl.train.executor import Executor
from mtl.train.phase import Weights
from mtl.train.placing import pad
from mtl.train.predict import predict, predict_calls
from mtl.train.trial import shapes

#: Called with (work done, see ``work_of``; trials done; trials failed) since the last call.
Progress = Callable[[float, int, int], None]


@dataclasses.dataclass(frozen=True)
class Done:
    """A phase that has been trained: its weights, and what is said of it in results.

    Attributes:
      weights: what the next phase begins from.
      about: JSON-able facts: curves, cost, where it diverged.
    """

    weights: Weights
    about: dict[str, Any]


def conclude(
    digests: Sequence[str],
    plan: Plan,
    done: dict[str, Done],
    workdir: Workdir,
    executor: Executor,
    progress: Progress,
) -> None:
    """Test the trials that have ended, once, and write their results."""
    for (model, target, normalize, _), members in _groups(digests, plan).items():
        trials = [plan.trials[d] for d in members]
        chains = [[done[k] for k in plan.chains[d]] for d in members]
        if not any(target in p.tasks for p in trials[0].phases):
            _write_untested(trials, chains, workdir, executor, progress)
            continue
        table = table_of(trials[0])
        rows = np.flatnonzero(split_of(trials[0]).test[target])
        standardize = normalize == "standardize"
        fitted = (statistics(table, split_of(t)) if standardize else nothing(table) for t in trials)
        shift, scale = zip(*fitted, strict=True)
        outputs = predict(
            model,
            target,
            [chain[-1].weights for chain in chains],
            np.stack(shift),
            np.stack(scale),
            table.x,
            standardize=standardize,
            rows=rows,
        )
        labels = table.labels[target][rows]
        task = model.task(target)
        names = METRICS[task.kind]
        values = _tested(task, names, outputs, labels)
        writer = _Writer(workdir)
        for i, (digest, trial, chain) in enumerate(zip(members, trials, chains, strict=True)):
            result = _result(trial, [d.about for d in chain], table.sha256, str(executor))
            if not np.isfinite(outputs[i]).all() and result["status"] == "done":
                last = chain[-1].about
                result |= {"status": "diverged", "diverged_at": {"phase": len(chain) - 1, "step": last["steps"]}}
            if result["status"] == "done":
                result["test"] = {n: float(v) for n, v in zip(names, values[i], strict=True)}
            normalization = {"shift": shift[i], "scale": scale[i]} if standardize else {}
            arrays = {"outputs": outputs[i], "rows": rows.astype(np.int32), "labels": labels}
            writer.add(NewResult(digest, clean(result), arrays, _model_bytes(trial, chain[-1].weights, normalization)))
        writer.flush()
        progress(0.0, len(members), 0)


def conclude_calls(digests: Sequence[str], plan: Plan) -> list[Call]:
    """Return what ``conclude`` will call for these trials."""
    found: list[Call] = []
    for (model, target, normalize, _), members in _groups(digests, plan).items():
        first = plan.trials[members[0]]
        if not any(target in p.tasks for p in first.phases):
            continue
        table, task = table_of(first), model.task(target)
        shape, rows = tuple(table.x.shape[1:]), int(split_of(first).test[target].sum())
        weights, standardize = shapes(model, shape), normalize == "standardize"
        found += predict_calls(model, target, weights, len(members), shape, rows, standardize=standardize)
        outputs = jax.ShapeDtypeStruct((_TESTED_TOGETHER, rows, task.outputs), jnp.float32)
        labels = jax.ShapeDtypeStruct((rows,), table.labels[target].dtype)
        found.append((_test_fn(task, METRICS[task.kind]), (outputs, labels)))
    return found


def _groups(digests: Sequence[str], plan: Plan) -> dict[Any, list[str]]:
    """Return the trials that are tested together, by (model, target, normalisation, the rest that decides it)."""
    groups: dict[Any, list[str]] = {}
    for digest in digests:
        trial = plan.trials[digest]
        d = trial.config["data"]
        tested = any(trial.target in p.tasks for p in trial.phases)
        about = str([d["name"], d["options"], d["test_size"], tested])
        groups.setdefault((trial.model(), trial.target, d["normalize"], about), []).append(digest)
    return groups


def _write_untested(
    trials: Sequence[Trial],
    chains: Sequence[Sequence[Done]],
    workdir: Workdir,
    executor: Executor,
    progress: Progress,
) -> None:
    """Write the results of trials that never see the target's labels: the test set is not for them."""
    writer = _Writer(workdir)
    for trial, chain in zip(trials, chains, strict=True):
        result = _result(trial, [d.about for d in chain], table_of(trial).sha256, str(executor))
        writer.add(NewResult(trial.hash, clean(result), None, _model_bytes(trial, chain[-1].weights, {})))
    writer.flush()
    progress(0.0, len(trials), 0)


#: Results are written together, so that they wait for the disk together, up to so many bytes or trials.
_BYTES_TOGETHER, _TRIALS_TOGETHER = 64 * 2**20, 64


class _Writer:
    """Writes results some at a time."""

    def __init__(self, workdir: Workdir) -> None:
        self.workdir, self.held = workdir, list[NewResult]()

    def add(self, result: NewResult) -> None:
        self.held.append(result)
        size = sum(len(new.model or b"") for new in self.held)
        if size >= _BYTES_TOGETHER or len(self.held) >= _TRIALS_TOGETHER:
            self.flush()

    def flush(self) -> None:
        self.workdir.write_results(self.held)
        self.held.clear()


def _model_bytes(trial: Trial, weights: Weights, normalization: dict[str, np.ndarray]) -> bytes | None:
    if not trial.config["save_model"]:
        return None
    tree = {"params": weights.params, "state": weights.state}
    tree |= {"normalization": normalization} if normalization else {}
    return dump_tree(tree, {"format": FORMAT, "config": trial.config})


#: One executable, whatever the number of trials.
_TESTED_TOGETHER = 64


def _tested(task: Task, names: tuple[str, ...], outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the metrics of outputs [trials, n, …], as [trials, metrics]."""
    found = []
    for first in range(0, len(outputs), _TESTED_TOGETHER):
        part = outputs[first : first + _TESTED_TOGETHER]
        padded = pad(part, _TESTED_TOGETHER)
        found.append(np.asarray(_test_fn(task, names)(padded, labels))[: len(part)])
    return np.concatenate(found)


@functools.lru_cache(maxsize=64)
def _test_fn(task: Task, names: tuple[str, ...]) -> Compiled:
    def one(outputs: jax.Array, labels: jax.Array) -> jax.Array:
        mask = jnp.ones(labels.shape, bool)
        return jnp.stack([metrics.metric(task, name)(outputs, labels, mask) for name in names])

    return Compiled(lambda outputs, labels: jax.lax.map(lambda o: one(o, labels), outputs))


def _result(trial: Trial, phases: list[dict[str, Any]], data_sha256: str, executor: str) -> dict[str, Any]:
    """Return what ``result.json`` says, but for the test."""
    kept = [_kept_loss(trial, number, phase) for number, phase in enumerate(phases)]
    val_loss = math.nan if kept[-1] is None else kept[-1]
    diverged = next(
        ({"phase": i, "step": at} for i, p in enumerate(phases) if (at := _diverged_at(p, kept[i])) is not None), None
    )
    begun = init_sha256(trial)
    # Like shared source phases, what trained the loaded weights is charged to each trial that begins from them.
    before = cost_of_weights(trial.loads, begun) if trial.loads else None
    total = {name: math.fsum([p[name] for p in phases] + ([before[name]] if before else [])) for name in COSTS}
    source = [p["examples"] for p in phases if p["source_only"]] + ([before["examples"]] if before else [])
    return {
        "hash": trial.hash,
        "config": trial.config,
        "status": "diverged" if diverged else "done",
        "diverged_at": diverged,
        "val_loss": val_loss,
        "phases": phases,
        "cost": total | {"source_examples": math.fsum(source)},
        "data_sha256": data_sha256,
        "init_sha256": begun,
        "init_cost": before,
        "code_version": code_version(),
        "executor": executor,
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "versions": {"jax": jax.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "finished": now(),
    }


def _kept_loss(trial: Trial, number: int, phase: dict[str, Any]) -> float | None:
    """Return the validation loss of the state that a phase kept (see ``phase.note``); nothing without labels."""
    curves = [phase["val_loss"][task] for task in judged(trial, split_of(trial), number)]
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
