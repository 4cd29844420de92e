"""Running a plan in this process: packs of lanes that share a program, results written as they come."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import traceback
from collections.abc import Callable
from typing import Any

import jax

from mtl.checkpoint import CheckpointError, dump_tree, load_tree
from mtl.data import nearest
from mtl.data.streamed import Streamed
from mtl.host.files import DamagedError, FileError
from mtl.inputs import Shape
from mtl.models import Model
from mtl.sweep.evaluate import PhaseResult, Progress, clean, evaluate
from mtl.sweep.plan import Node, Plan, scaling_of, split_key, split_of, table_of, val_rows_of
from mtl.sweep.reference import refer
from mtl.sweep.schema import PREFIX, check
from mtl.sweep.snapshots import Interrupt, Snapshots
from mtl.sweep.store import FORMAT, StoreError, Workdir
from mtl.sweep.weights import begin_of
from mtl.train import loop, stream
from mtl.train.begin import freshen
from mtl.train.compiled import Compiled
from mtl.train.dataset import make_data
from mtl.train.flops import flops_to_cache
from mtl.train.judge import EVALUATION_ROWS
from mtl.train.names import renamed
from mtl.train.placement import Placement, memory_limit, placement_for
from mtl.train.processes import agree, any_of_us
from mtl.train.program import Program, Weights
from mtl.train.trial import shapes


def work_of(node: Node) -> float:
    """Return a phase's work, for progress only: examples seen, times three where gradients reach the backbone."""
    return float(node.stage.steps * _work_per_step(node.stage.program))


def _work_per_step(program: Program) -> int:
    return program.rows * (3 if any(p.startswith("backbone/") for p in program.trainable) else 1)


def execute(
    plan: Plan,
    workdir: Workdir,
    *,
    placement: Placement | None = None,
    reverse: bool = False,
    interrupt: Interrupt | None = None,
    progress: Progress = lambda *_: None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Train every phase of a plan that is not there yet, and write every trial's result.

    Args:
      plan: the trials that are missing.
      workdir: where results and shared phases are kept.
      placement: how packs run; by default what suits the backend.
      reverse: take programs in reverse order, so that two processes with a common cache do not compile the same
        program at the same time.
      interrupt: told of signals; the pack at hand is then kept as it is, to go on from.
      progress: told of work done after every chunk.
      say: told what a user should know.

    Raises:
      Stopped: if it was interrupted.
    """
    placement = placement or placement_for(jax.default_backend(), jax.local_device_count())
    for node in (n for n in plan.nodes.values() if not n.trial.reference):
        loop.check_spread(node.stage.program, table_of(node.trial).shape, placement)
    failed: dict[str, dict[str, str]] = {}
    snapshots = Snapshots(workdir.inside("snapshots"), interrupt or Interrupt(), say)
    done = _there_already(plan, workdir, say)

    safe: set[str] = set()
    waiting = {k: n for k, n in plan.nodes.items() if k not in done}
    kinds = _kinds(waiting)
    uses = {k: len(users) for k, users in plan.users.items()}
    left = {d: set(plan.phases_of(d)) - done.keys() for d in plan.trials}  # What each trial waits for.
    # Trials that end with a shared phase.
    evaluate([d for d, keys in left.items() if not keys], plan, done, workdir, placement, progress)
    left = {d: keys for d, keys in left.items() if keys}
    while waiting:
        _settle(waiting, kinds, done, plan, progress)
        nodes = _next_pack(waiting, kinds, done, snapshots, reverse)
        if not nodes:  # What is left rests on phases that failed.
            break
        nodes = _of_few_replicates(nodes[: _most_lanes(nodes[0])])
        try:
            outcomes = _train(nodes, plan, done, workdir, placement, snapshots, progress, say)
        except (loop.Stopped, FileError, StoreError):  # A full disk is no trial's fault.
            raise
        except Exception as error:
            if jax.process_count() > 1:
                raise  # The others wait for this process: they must all end.
            text = str(error).strip()
            message = f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"
            why = {"error": message, "traceback": traceback.format_exc()}
            failed |= {n.key: why for n in nodes}
            outcomes = {}
        for node in nodes:
            waiting.pop(node.key)
        done |= outcomes
        workdir.write_prefixes((key, _prefix_bytes(outcome)) for key, outcome in outcomes.items() if plan.saved(key))
        for key in outcomes:
            for digest in plan.users[key]:
                left[digest].discard(key)
        ended = [d for d, keys in left.items() if not keys]
        evaluate(ended, plan, done, workdir, placement, progress)
        safe |= {k for k in outcomes if plan.saved(k)} | {k for d in ended for k in plan.phases_of(d)}
        snapshots.discard(safe)
        for digest in ended:  # What no waiting trial needs is let go, and weights that no waiting phase begins from.
            del left[digest]
            for key in plan.phases_of(digest):
                uses[key] -= 1
                if not uses[key]:
                    done.pop(key, None)
        held = {n.parent for n in waiting.values()} | {plan.chains[d][-1] for d in left}
        for key in done.keys() - held:
            done[key] = dataclasses.replace(done[key], weights=_GONE)
        Compiled.make_room()
    for digest in plan.trials:
        if first := next((failed[k] for k in plan.phases_of(digest) if k in failed), None):
            workdir.write_failure(digest, {"config": plan.trials[digest].config, **first})
            progress(0.0, 0, 1)


def _there_already(plan: Plan, workdir: Workdir, say: Callable[[str], None]) -> dict[str, PhaseResult]:
    """Return the shared phases that are on disk; with several processes, those that the first one found."""
    found = {key: _load_prefix(workdir, key, say) for key in plan.nodes if plan.saved(key)}
    keys = agree([key for key, done in found.items() if done is not None])
    any_of_us(False)  # Nobody writes before all have read.
    return {key: done for key in keys if (done := found[key]) is not None}


#: In place of weights that nothing begins from.
_GONE = Weights({}, {})

#: Phases on all n labels are compiled for so many lanes at most, whatever the size of their pack.
_LANES_AFTER_FOLDS = 16

#: A pack is not held back for lanes that are not ready yet once it has so many.
_LANES_ENOUGH = 64


#: What phases that may go in one pack have in common, the place of their program in the plan first.
_Kind = tuple[int, int, str, int, str]


def _kinds(nodes: dict[str, Node]) -> dict[str, _Kind]:
    """Return the kind of each phase."""
    programs: dict[Program, int] = {}
    found = {}
    for key, node in nodes.items():
        c, stage = node.trial.config, node.stage
        about = str([c["data"]["name"], c["data"]["options"], c["init"], val_rows_of(node.trial)])
        program = programs.setdefault(node.compiled.stage.program, len(programs))
        found[key] = (program, stage.steps, stage.select, c["evaluations"], about)
    return found


def _settle(
    waiting: dict[str, Node], kinds: dict[str, _Kind], done: dict[str, PhaseResult], plan: Plan, progress: Progress
) -> None:
    """Give the phases on all labels their steps: the median of those that were best on each fold, once these are done.

    The steps that they are spared are told as done.
    """
    spared = 0.0
    for key, node in waiting.items():
        if node.after and all(k in done for k in node.after):
            best = statistics.median(done[k].about["best_at"] for k in node.after)
            stage = dataclasses.replace(node.stage, steps=nearest(float(best)))
            waiting[key] = settled = dataclasses.replace(node, stage=stage, after=())
            kinds[key] = (kinds[key][0], stage.steps, *kinds[key][2:])
            spared += work_of(node) - work_of(settled)
    if spared:
        progress(spared, 0, 0)


def _next_pack(
    waiting: dict[str, Node], kinds: dict[str, _Kind], done: dict[str, PhaseResult], snapshots: Snapshots, reverse: bool
) -> list[Node]:
    """Return the lanes of the next pack: phases of one kind whose parents are done, and that have come as far.

    Small packs whose lanes are not all ready yet come last, so that as many lanes as possible go in one.
    """
    groups: dict[tuple[_Kind, int], list[Node]] = {}
    for key, node in waiting.items():
        groups.setdefault((kinds[key], snapshots.at(key)), []).append(node)
    packs = []
    for ((program, *_), _), nodes in groups.items():
        if able := [n for n in nodes if not n.after and (n.parent is None or n.parent in done)]:
            packs.append((len(able) < min(len(nodes), _LANES_ENOUGH), -program if reverse else program, able))
    return min(packs, key=lambda pack: pack[:2], default=(False, 0, []))[2]


def _most_lanes(node: Node) -> int:
    """Return how many trials' weights may be held between training and testing: an eighth of the memory there is.

    The compiled width is bounded by XLA's analysis; this bounds what a pack leaves behind on the host.
    """
    if node.trial.reference:
        return 1  # Its result is written as soon as it is there.
    shape = table_of(node.trial).shape
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes(node.stage.program.model, shape)))
    return max(2, agree(memory_limit()) // (8 * max(1, held)))


def _of_few_replicates(nodes: list[Node]) -> list[Node]:
    """Return the first lanes of a pack, of so few replicates that one step of all fits into a window of a stream."""
    inputs, program = table_of(nodes[0].trial).x, nodes[0].stage.program
    if not isinstance(inputs, Streamed):
        return nodes
    rows = max(program.rows, min(EVALUATION_ROWS, val_rows_of(nodes[0].trial)))
    most = max(1, stream.WINDOW_BYTES // (inputs.row_bytes * rows))
    drawing = [(n.trial.seed, n.stage.program.tasks) for n in nodes]
    kept = set(list(dict.fromkeys(drawing))[:most])
    return [n for n, own in zip(nodes, drawing, strict=True) if own in kept]


def _train(
    nodes: list[Node],
    plan: Plan,
    done: dict[str, PhaseResult],
    workdir: Workdir,
    placement: Placement,
    snapshots: Snapshots,
    progress: Progress,
    say: Callable[[str], None],
) -> dict[str, PhaseResult]:
    """Train a pack and return its outcomes by key."""
    first = nodes[0]
    if first.trial.reference:
        if any_of_us(bool(snapshots.interrupt.number)):
            raise loop.Stopped
        found = {first.key: refer(first)}
        progress(work_of(first), 0, 0)
        return found
    table = table_of(first.trial)
    shape = table.shape
    program = first.compiled.stage.program
    # Lanes share a split where they are of the same tasks.
    keys = [(split_key(n.trial), n.stage.program.tasks) for n in nodes]
    owners = dict(zip(keys, nodes, strict=True))
    order = {key: lane for lane, key in enumerate(owners)}
    lanes, drawn = [order[key] for key in keys], list(owners.values())
    # A power of two of splits, so that packs of about the same width share an executable; so do packs of phases on all
    # n labels, which are of any size, as their folds decide.
    after_folds = bool(plan.nodes[first.key].after)
    most = max(len(drawn), min(_LANES_ENOUGH, len(plan.trials))) if after_folds else len(drawn)
    drawn += [drawn[-1]] * ((1 << (most - 1).bit_length()) - len(drawn))
    splits, scalings = [split_of(n.trial) for n in drawn], [scaling_of(n.trial) for n in drawn]
    names = [n.compiled.names for n in drawn]
    arrays = make_data(table, splits, [program], val_rows_of(first.trial), scalings, names)
    program_key = plan.program_key(first.key)
    width = workdir.width(program_key, str(placement)) if placement.kind == "vmap" else None
    begin, initial = [], _initial(nodes, shape, placement)
    for node, lane in zip(nodes, lanes, strict=True):
        parent, fresh = node.parent, node.stage.fresh
        own = done[parent].weights if parent else begin_of(node.trial, initial[node.key], scalings[lane])
        begin.append(renamed(freshen(own, initial[node.key], fresh) if fresh else own, node.compiled.numbers))

    def halved(width: int, needed: int, limit: int) -> None:
        gib = 2**30
        say(f"a pack {width} wide needs {needed / gib:.2f} GiB and there are {limit / gib:.2f}: halved to {width // 2}")

    try:
        outcomes = loop.run_phase(
            [n.trial.seed for n in nodes],
            [n.compiled.stage for n in nodes],
            lanes,
            begin,
            arrays,
            evaluations=first.trial.config["evaluations"],
            placement=placement,
            stream=table.x if isinstance(table.x, Streamed) else None,
            width=width,
            together=min(_LANES_AFTER_FOLDS, len(plan.trials)) if after_folds else None,
            on_steps=lambda steps: progress(float(steps * _work_per_step(program)), 0, 0),
            on_width=halved,
            guard_of=lambda part: snapshots.guard([n.key for n in nodes[part]]),
        )
    finally:
        snapshots.settle()
    if placement.kind == "vmap" and width is None:
        workdir.keep_width(program_key, str(placement), outcomes[0].width)
    found, solver = {}, program.solver
    for node, lane, outcome in zip(nodes, lanes, outcomes, strict=True):
        split, scaling, names_of = splits[lane], scalings[lane], node.compiled.names
        rows = len(split.rows(node.stage.program.tasks))
        steps = outcome.steps[-1]
        spent = solver.flops(program, shape, steps, rows) + flops_to_cache(program, shape, rows)
        about = {
            "tasks": list(node.stage.program.tasks),
            "lr": node.stage.hypers.lr,
            "steps": steps,
            "most_steps": int(node.stage.hypers.steps),
            "best_at": outcome.best_at,
            "evaluated_at": outcome.steps,
            **{
                name: {names_of[t]: [v * scaling.squared(names_of[t]) for v in curve] for t, curve in curves.items()}
                for name, curves in (("train_loss", outcome.train_loss), ("val_loss", outcome.val_loss))
            },
            "val_score": {names_of[t]: curve for t, curve in outcome.val_score.items()},
            "diverged_at": outcome.diverged_at,
            "examples": solver.examples(program, steps, rows),
            "flops": spent,
            "seconds": outcome.seconds,
            "source_only": node.source_only,
            "key": node.key,
            "width": outcome.width,
            "program": program_key,
        }
        if outcome.penalties:
            about["penalties"] = {names_of[t]: penalty for t, penalty in outcome.penalties.items()}
        found[node.key] = PhaseResult(renamed(outcome.weights, names_of), about)
    return found


def _initial(nodes: list[Node], shape: Shape, placement: Placement) -> dict[str, Weights]:
    """Return the initial weights of the phases that begin with them, in whole or in part; equal ones are shared."""
    model = nodes[0].compiled.stage.program.model
    plain = tuple(t.name for t in model.tasks)
    lanes = {}
    for node in nodes:
        if not node.parent or node.stage.fresh:
            # Heads that begin at zero are the same whatever they are called.
            named = model.head_init != "zeros"
            lanes[node.key] = node.trial.seed, tuple(node.compiled.names[t] for t in plain) if named else plain
    found = _begun(model, shape, tuple(sorted(set(lanes.values()))), placement) if lanes else {}
    return {n.key: renamed(found[lanes[n.key]], n.compiled.names) for n in nodes if n.key in lanes}


@functools.lru_cache(maxsize=8)
def _begun(
    model: Model, shape: Shape, lanes: tuple[tuple[int, tuple[str, ...]], ...], placement: Placement
) -> dict[tuple[int, tuple[str, ...]], Weights]:
    seeds, names = zip(*lanes, strict=True)
    return dict(zip(lanes, loop.initial_weights(model, shape, seeds, placement, names), strict=True))


def _prefix_bytes(outcome: PhaseResult) -> bytes:
    tree = {"params": outcome.weights.params, "state": outcome.weights.state}
    return dump_tree(tree, {"format": FORMAT, "about": clean(outcome.about)})


def _load_prefix(workdir: Workdir, key: str, say: Callable[[str], None]) -> PhaseResult | None:
    """Return a shared phase from disk; nothing if it is not there or cannot be believed (it is then trained anew)."""
    file = workdir.prefix(key)
    if not file.is_file():
        return None
    try:
        tree, about = load_tree(file)
        if about.get("format") != FORMAT:
            raise CheckpointError(f"{file} is of format {about.get('format')}, and this version of mtl writes {FORMAT}")
        check(about.get("about"), PREFIX)
        if about["about"]["key"] != key or not isinstance(tree.get("params"), dict):
            raise CheckpointError(f"{file} holds something else than its name says")
    except (CheckpointError, DamagedError) as error:
        name = f"{file} " if isinstance(error, DamagedError) else ""
        say(f"{name}{error}; the shared phase in it is trained anew")
        return None
    return PhaseResult(Weights(tree["params"], tree.get("state", {})), _restore(about["about"]))


def _restore(about: dict[str, Any]) -> dict[str, Any]:
    """Return facts with NaN where ``clean`` put null."""
    nan = float("nan")
    curves = {
        name: {t: [nan if v is None else v for v in c] for t, c in about[name].items()}
        for name in ("train_loss", "val_loss", "val_score")
    }
    return {**about, **curves, "flops": nan if about["flops"] is None else about["flops"]}
