"""Running a plan in this process: packs of lanes that share a program, results written as they come."""

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
from mtl.checkpoint import CheckpointError, load_params, load_tree, save_tree
from mtl.config import Trial
from mtl.models import Model
from mtl.params import merge
from mtl.sweep.plan import Node, Plan, init_sha256, split_key, split_of, table_of, val_rows_of
from mtl.sweep.store import FORMAT, Workdir, code_version, now
from mtl.tasks import METRICS, Task
from mtl.train import loop
from mtl.train.dataset import make_data, statistics
from mtl.train.executor import Executor, executor_for
from mtl.train.flops import flops_per_step, flops_to_cache
from mtl.train.phase import Weights
from mtl.train.program import Program
from mtl.train.trial import freshen

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


def work_of(node: Node) -> float:
    """Return a phase's work, for progress only: examples seen, times three where gradients reach the backbone."""
    return float(node.stage.steps * _work_per_step(node.stage.program))


def _work_per_step(program: Program) -> int:
    return program.rows * (3 if any(p.startswith("backbone/") for p in program.trainable) else 1)


def execute(
    plan: Plan,
    workdir: Workdir,
    *,
    executor: Executor | None = None,
    reverse: bool = False,
    progress: Progress = lambda *_: None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Train every phase of a plan that is not there yet, and write every trial's result.

    Args:
      plan: the trials that are missing.
      workdir: where results and shared phases are kept.
      executor: how packs run; by default what suits the backend.
      reverse: take programs in reverse order, so that two processes with a common cache do not compile the same
        program at the same time.
      progress: told of work done after every chunk.
      say: told what a user should know.
    """
    executor = executor or executor_for(jax.default_backend(), jax.local_device_count())
    done: dict[str, Done] = {}
    failed: dict[str, str] = {}
    for key in plan.nodes:
        found = _load_prefix(workdir, key) if plan.saved(key) else None
        if found is not None:
            done[key] = found
            progress(work_of(plan.nodes[key]), 0, 0)
    needed = {k for digest, chain in plan.chains.items() for k in chain[_resume_at(chain, done) :]}
    waiting = {k: n for k, n in plan.nodes.items() if k in needed and k not in done}
    uses = {k: sum(1 for chain in plan.chains.values() if k in chain) for k in plan.nodes}
    for digest, chain in plan.chains.items():
        if chain[-1] in done:  # A trial that ends with a shared phase.
            _conclude([digest], plan, done, workdir, executor, progress)
    while waiting:
        nodes = _next_pack(waiting, done, reverse)
        if not nodes:
            for key in list(waiting):
                failed[key] = failed.get(waiting[key].parent or "", "the phase before it failed")
                waiting.pop(key)
            break
        try:
            outcomes = _train(nodes, plan, done, workdir, executor, progress, say)
        except (RuntimeError, ValueError, FloatingPointError, MemoryError) as error:
            # XLA reports what it cannot compile or allocate as RuntimeError: the other packs can still run.
            message = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            failed |= {n.key: message for n in nodes}
            outcomes = {}
        for node in nodes:
            waiting.pop(node.key)
        done |= outcomes
        for key, outcome in outcomes.items():
            if plan.saved(key):
                _save_prefix(workdir, key, outcome)
        ended = [d for d, chain in plan.chains.items() if chain[-1] in outcomes]
        _conclude(ended, plan, done, workdir, executor, progress)
        for digest in ended:  # Weights that no waiting trial needs are let go.
            for key in plan.chains[digest]:
                uses[key] -= 1
                if not uses[key] and key in done:
                    done.pop(key)
    for digest, chain in plan.chains.items():
        reasons = [failed[k] for k in chain if k in failed]
        if reasons:
            workdir.write_failure(digest, {"format": FORMAT, "config": plan.trials[digest].config, "error": reasons[0]})
            progress(0.0, 0, 1)


def _resume_at(chain: Sequence[str], done: dict[str, Done]) -> int:
    """Return the index of the first phase of a chain that must be trained."""
    return max((i + 1 for i, key in enumerate(chain) if key in done), default=0)


#: A pack is not held back for lanes that are not ready yet once it has so many.
_LANES_ENOUGH = 64


def _next_pack(waiting: dict[str, Node], done: dict[str, Done], reverse: bool) -> list[Node]:
    """Return the lanes of the next pack: phases whose parents are done, of one program, length and table.

    Small packs whose lanes are not all ready yet come last, so that as many lanes as possible go in one.
    """
    groups: dict[Any, list[Node]] = {}
    programs: dict[Program, int] = {}
    for node in waiting.values():
        d = node.trial.config["data"]
        order = programs.setdefault(node.stage.program, len(programs))
        about = str([d["name"], d["options"], node.trial.config["init"], val_rows_of(node.trial)])
        key = (order, node.stage.steps, node.trial.config["evaluations"], about)
        groups.setdefault(key, []).append(node)
    best: tuple[Any, list[Node]] | None = None
    for (order, *_), nodes in groups.items():
        able = [n for n in nodes if n.parent is None or n.parent in done]
        if able:
            held_back = len(able) < len(nodes) and len(able) < _LANES_ENOUGH
            rank = (held_back, -order if reverse else order)
            if best is None or rank < best[0]:
                best = (rank, able)
    return best[1] if best is not None else []


def _train(
    nodes: list[Node],
    plan: Plan,
    done: dict[str, Done],
    workdir: Workdir,
    executor: Executor,
    progress: Progress,
    say: Callable[[str], None],
) -> dict[str, Done]:
    """Train a pack and return its outcomes by key."""
    first = nodes[0]
    table = table_of(first.trial)
    shape = tuple(table.x.shape[1:])
    program = first.stage.program
    per_step = flops_per_step(program, shape)
    order: dict[str, int] = {}
    for node in nodes:
        order.setdefault(split_key(node.trial), len(order))
    representatives = {split_key(n.trial): n.trial for n in nodes}
    splits = [split_of(representatives[k]) for k in order]
    # A power of two of splits, so that packs of about the same width share an executable.
    splits += [splits[-1]] * ((1 << (len(splits) - 1).bit_length()) - len(splits))
    arrays = make_data(table, splits, [program], val_rows_of(first.trial))
    seeds = sorted({n.trial.seed for n in nodes})
    initial = _initial(program.model, shape, tuple(seeds), executor)
    begin = []
    for node in nodes:
        own = initial[node.trial.seed]
        if node.parent is None:
            begin.append(freshen(_loaded(node.trial, own), own, node.stage.fresh))
        else:
            begin.append(freshen(done[node.parent].weights, own, node.stage.fresh))
    program_key = plan.program_key(first.key)
    width = workdir.width(program_key, str(executor)) if executor.kind == "vmap" else None

    def halved(width: int, needed: int, limit: int) -> None:
        gib = 2**30
        say(f"a pack {width} wide needs {needed / gib:.2f} GiB and there are {limit / gib:.2f}: halved to {width // 2}")

    outcomes = loop.run_phase(
        [n.trial.seed for n in nodes],
        [n.stage for n in nodes],
        [order[split_key(n.trial)] for n in nodes],
        begin,
        arrays,
        evaluations=first.trial.config["evaluations"],
        executor=executor,
        width=width,
        on_steps=lambda steps: progress(float(steps * _work_per_step(program)), 0, 0),
        on_width=halved,
    )
    if executor.kind == "vmap" and width is None:
        workdir.keep_width(program_key, str(executor), outcomes[0].width)
    found = {}
    for node, outcome in zip(nodes, outcomes, strict=True):
        rows = np.any(np.stack([splits[order[split_key(node.trial)]].train[t] for t in program.tasks]), axis=0)
        about = {
            "tasks": list(program.tasks),
            "lr": node.stage.lr,
            "steps": node.stage.steps,
            "evaluated_at": outcome.steps,
            "train_loss": outcome.train_loss,
            "val_loss": outcome.val_loss,
            "diverged_at": outcome.diverged_at,
            "examples": node.stage.steps * program.rows,
            "flops": node.stage.steps * per_step + flops_to_cache(program, shape, int(rows.sum())),
            "seconds": outcome.seconds,
            "source_only": node.source_only,
            "key": node.key,
            "width": outcome.width,
        }
        found[node.key] = Done(outcome.weights, about)
    return found


@functools.lru_cache(maxsize=8)
def _initial(model: Model, shape: tuple[int, ...], seeds: tuple[int, ...], executor: Executor) -> dict[int, Weights]:
    return dict(zip(seeds, loop.initial_weights(model, shape, seeds, executor), strict=True))


def _loaded(trial: Trial, initial: Weights) -> Weights:
    init = trial.config["init"]
    if not init["path"]:
        return initial
    loaded = load_params(init["path"])
    return Weights(
        merge(initial.params, loaded, tuple(init["fresh"]), tuple(map(tuple, init["rename"]))), initial.state
    )


def _save_prefix(workdir: Workdir, key: str, outcome: Done) -> None:
    tree = {"params": outcome.weights.params, "state": outcome.weights.state}
    save_tree(workdir.prefix(key), tree, {"format": FORMAT, "about": clean(outcome.about)})


def _load_prefix(workdir: Workdir, key: str) -> Done | None:
    """Return a shared phase from disk; nothing if it is not there or cannot be read (it is then trained anew)."""
    if not workdir.prefix(key).is_file():
        return None
    try:
        tree, about = load_tree(workdir.prefix(key))
    except CheckpointError:
        return None
    if about.get("format") != FORMAT or about.get("about", {}).get("key") != key:
        return None
    return Done(Weights(tree["params"], tree.get("state", {})), _restore(about["about"]))


def _restore(about: dict[str, Any]) -> dict[str, Any]:
    """Return facts with NaN where ``clean`` put null."""
    nan = float("nan")
    losses_ = {t: [nan if v is None else v for v in c] for t, c in about["val_loss"].items()}
    train = [nan if v is None else v for v in about["train_loss"]]
    return {**about, "val_loss": losses_, "train_loss": train}


def _conclude(
    digests: Sequence[str],
    plan: Plan,
    done: dict[str, Done],
    workdir: Workdir,
    executor: Executor,
    progress: Progress,
) -> None:
    """Test the trials that have ended, once, and write their results."""
    groups: dict[Any, list[str]] = {}
    for digest in digests:
        trial = plan.trials[digest]
        d = trial.config["data"]
        tested = any(trial.target in p.tasks for p in trial.phases)
        about = str([d["name"], d["options"], d["test_size"], tested])
        signature = (trial.model(), trial.target, d["normalize"], about)
        groups.setdefault(signature, []).append(digest)
    for (model, target, normalize, _), members in groups.items():
        trials = [plan.trials[d] for d in members]
        chains = [[done[k] for k in plan.chains[d]] for d in members]
        if not any(target in p.tasks for p in trials[0].phases):
            _write_untested(trials, chains, workdir, executor, progress)
            continue
        table = table_of(trials[0])
        rows = np.flatnonzero(split_of(trials[0]).test[target])
        shift, scale = zip(*(statistics(table, split_of(t)) for t in trials), strict=True)
        outputs = loop.predict(
            model,
            target,
            [chain[-1].weights for chain in chains],
            np.stack(shift),
            np.stack(scale),
            table.x[rows],
            standardize=normalize == "standardize",
        )
        labels = table.labels[target][rows]
        task = model.task(target)
        names = METRICS[task.kind]
        values = _tested(task, names, outputs, labels)
        for i, (digest, trial, chain) in enumerate(zip(members, trials, chains, strict=True)):
            result = _result(trial, [d.about for d in chain], table.sha256, str(executor))
            if result["status"] == "done":
                result["test"] = {n: float(v) for n, v in zip(names, values[i], strict=True)}
            normalization = {"shift": shift[i], "scale": scale[i]} if normalize == "standardize" else {}
            _save_model(workdir, trial, chain[-1].weights, normalization)
            arrays = {"outputs": outputs[i], "rows": rows.astype(np.int32), "labels": labels}
            workdir.write_result(digest, clean(result), arrays)
        progress(0.0, len(members), 0)


def _write_untested(
    trials: Sequence[Trial],
    chains: Sequence[Sequence[Done]],
    workdir: Workdir,
    executor: Executor,
    progress: Progress,
) -> None:
    """Write the results of trials that never see the target's labels: the test set is not for them."""
    for trial, chain in zip(trials, chains, strict=True):
        result = _result(trial, [d.about for d in chain], table_of(trial).sha256, str(executor))
        _save_model(workdir, trial, chain[-1].weights, {})
        workdir.write_result(trial.hash, clean(result))
    progress(0.0, len(trials), 0)


def _save_model(workdir: Workdir, trial: Trial, weights: Weights, normalization: dict[str, np.ndarray]) -> None:
    if trial.config["save_model"]:
        tree = {"params": weights.params, "state": weights.state}
        tree |= {"normalization": normalization} if normalization else {}
        about = {"format": FORMAT, "config": trial.config}
        save_tree(workdir.trial(trial.hash) / "model.safetensors", tree, about)


def _tested(task: Task, names: tuple[str, ...], outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the metrics of outputs [trials, n, …], as [trials, metrics]."""
    width = 64  # One executable, whatever the number of trials.
    found = []
    for first in range(0, len(outputs), width):
        part = outputs[first : first + width]
        padded = np.concatenate([part, np.repeat(part[-1:], width - len(part), axis=0)])
        found.append(np.asarray(_test_fn(task, names)(padded, labels))[: len(part)])
    return np.concatenate(found)


@functools.lru_cache(maxsize=64)
def _test_fn(task: Task, names: tuple[str, ...]) -> Callable[..., jax.Array]:
    def one(outputs: jax.Array, labels: jax.Array) -> jax.Array:
        mask = jnp.ones(labels.shape, bool)
        return jnp.stack([metrics.metric(task, name)(outputs, labels, mask) for name in names])

    return jax.jit(lambda outputs, labels: jax.lax.map(lambda o: one(o, labels), outputs))


def _result(trial: Trial, phases: list[dict[str, Any]], data_sha256: str, executor: str) -> dict[str, Any]:
    """Return what ``result.json`` says, but for the test."""
    last = phases[-1]
    of_target = last["val_loss"].get(trial.target)
    ends = [of_target[-1]] if of_target else [curve[-1] for curve in last["val_loss"].values()]
    diverged = next(
        ({"phase": i, "step": p["diverged_at"]} for i, p in enumerate(phases) if p["diverged_at"] >= 0), None
    )
    total = {name: math.fsum(p[name] for p in phases) for name in ("examples", "flops", "seconds")}
    return {
        "format": FORMAT,
        "hash": trial.hash,
        "config": trial.config,
        "status": "diverged" if diverged else "done",
        "diverged_at": diverged,
        "val_loss": math.fsum(ends) / len(ends),
        "phases": phases,
        "cost": total | {"source_examples": math.fsum(p["examples"] for p in phases if p["source_only"])},
        "data_sha256": data_sha256,
        "init_sha256": init_sha256(trial),
        "code_version": code_version(),
        "executor": executor,
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "versions": {"jax": jax.__version__, "numpy": np.__version__, "python": platform.python_version()},
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
