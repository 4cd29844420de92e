"""What a trial came to: tested once, its model and its result written."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl import metrics
from mtl.checkpoint import dump_tree
from mtl.config import Trial
from mtl.sweep.fingerprint import Fingerprint
from mtl.sweep.plan import Plan, check_weights, split_of, table_of
from mtl.sweep.provenance import provenance
from mtl.sweep.store import FORMAT, NewResult, Workdir, now
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
            _write_untested(trials, chains, plan, workdir, executor, progress)
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
            result = _result(trial, [d.about for d in chain], plan.fingerprints[digest], str(executor))
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
    plan: Plan,
    workdir: Workdir,
    executor: Executor,
    progress: Progress,
) -> None:
    """Write the results of trials that never see the target's labels: the test set is not for them."""
    writer = _Writer(workdir)
    for trial, chain in zip(trials, chains, strict=True):
        result = _result(trial, [d.about for d in chain], plan.fingerprints[trial.hash], str(executor))
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


def _result(trial: Trial, phases: list[dict[str, Any]], planned: Fingerprint, executor: str) -> dict[str, Any]:
    """Return what ``result.json`` says, but for the test."""
    check_weights(trial, planned)
    last = phases[-1]
    of_target = last["val_loss"].get(trial.target)
    curves = [of_target] if of_target else list(last["val_loss"].values())
    scores = [math.fsum(at) / len(at) for at in zip(*curves, strict=True)]
    finite = [score for score in scores if math.isfinite(score)]
    # The loss of the state that was kept: the best one where the phase selects it (see ``phase.note``).
    val_loss = min(finite) if trial.phases[-1].select == "best" and finite else scores[-1]
    diverged = next(
        ({"phase": i, "step": p["diverged_at"]} for i, p in enumerate(phases) if p["diverged_at"] >= 0), None
    )
    total = {name: math.fsum(p[name] for p in phases) for name in ("examples", "flops", "seconds")}
    return {
        "hash": trial.hash,
        "config": trial.config,
        "status": "diverged" if diverged else "done",
        "diverged_at": diverged,
        "val_loss": val_loss,
        "phases": phases,
        "cost": total | {"source_examples": math.fsum(p["examples"] for p in phases if p["source_only"])},
        "fingerprint": planned,
        "executor": executor,
        **provenance(),
        "finished": now(),
    }


def clean(value: Any) -> Any:
    """Return a JSON value with null for numbers that are not finite, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    return value
