"""A trial's programs and their numbers: what its resolved config comes to, checked before anything is compiled."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl import adapt, balance, config, optim, regimes
from mtl import params as paths
from mtl.data import Asked
from mtl.inputs import Shape, leaf_shapes
from mtl.losses import loss_of, registered
from mtl.models import TOLD, Model, anatomy, untold
from mtl.optim import rates
from mtl.train.dataset import pool_name
from mtl.train.descent import Descent
from mtl.train.move import averages
from mtl.train.program import Hypers, Program, Weights, stream_of, trainable_paths
from mtl.train.reference import Reference
from mtl.train.ridge import Ridge

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Stage:
    """A phase of a trial: the program, its numbers, and what starts fresh.

    Attributes:
      program: what is compiled.
      hypers: its numbers as Python values; which replicate and split they go with is not said yet.
      fresh: whole paths of parameters that start anew.
      steps: the phase's steps, at most those that its schedule runs over.
      select: whether the ``last`` or the ``best`` state goes on; the last one can of any program.
    """

    program: Program
    hypers: Hypers
    fresh: tuple[str, ...]
    steps: int
    select: str


def stage_key(trial: config.Trial) -> str:
    """Return what decides a trial's stages: its config without the replicate, and of its data only what they go by."""
    data = trial.config["data"]
    counts = [most_labels(trial, tasks) for tasks in (data["source"], trial.asked)]
    return config.canonical({**trial.config, "seed": 0, "data": [trial.asked, data.get("rows"), counts]})


def most_labels(trial: config.Trial, tasks: Sequence[str]) -> int:
    """Return the most rows with a training label of any of some tasks that a trial can have."""
    data = trial.config["data"]
    size = Asked.of(data)
    if data.get("rows") == "shared":
        return size.target_train * bool(tasks)
    of_source, of_targets = (not set(tasks).isdisjoint(pool) for pool in (data["source"], trial.asked))
    return size.source_train * of_source + size.target_train * of_targets


def _cached(program: Program, steps: int, rows: int) -> bool:
    """Return whether a phase computes its trunk's features once: nothing random or moving is below its heads.

    Nor may that be more work than a phase that draws fewer rows than there are: this goes by the config, so that it
    is the same for a trial whatever is in its pack.
    """
    still = program.trunk_mode == "eval" and all(p.startswith("heads/") for p in program.trainable)
    still = still and not program.augment
    return still and steps * program.rows >= rows


def stages_of(trial: config.Trial, shape: Shape, standardize: bool = False) -> tuple[Stage, ...]:
    """Return a trial's stages, every pattern checked against the model's parameters; nothing is compiled.

    Args:
      trial: the resolved trial.
      shape: what one input is.
      standardize: whether inputs are scaled.

    Raises:
      ConfigError: for a pattern that matches no parameter.
    """
    c, model = trial.config, trial.model()
    params = shapes(model, shape).params
    wide = [path for path, leaf in paths.flatten(params).items() if leaf.dtype == jnp.float64]
    if model.dtype == "bfloat16" and wide:
        raise config.ConfigError(
            f'config.model.dtype = "bfloat16": parameter {wide[0]} is float64: use "float32", or make it float32'
        )
    drawn: dict[str, int] = {}
    section = c["optimizer"]
    solvers = {"gradient": Descent(), "ridge": Ridge(tuple(c["ridge"]["penalties"]), c["ridge"]["choose"])}
    optimizer, numbers = optim.optimizer(section)
    balancer, weighs = balance.balancing(**c["balancer"])
    stages, unused = [], set(section["rates"])
    for step in trial.phases:
        with config.refused("regime: "):
            if step.adapt:
                adapter, adapts, trainable = _adapter(model, shape, step)
            else:
                adapter, adapts, trainable = None, {}, trainable_paths(params, step.trainable, step.tasks)
            fresh = tuple(p for p, chosen in paths.flatten(paths.select(params, step.fresh)).items() if chosen)
        # There is nothing to balance where one task's gradients, or none, reach the trunk.
        balanced = len(step.tasks) > 1 and any(p.startswith("backbone/") for p in trainable)
        program = Program(
            **{
                **{f.name: getattr(step, f.name) for f in dataclasses.fields(Program) if hasattr(step, f.name)},
                "trainable": trainable,
                "solver": solvers.get(step.solver) or Reference(step.solver),
            },
            model=model,
            blocks=anatomy(model, shape).blocks,
            optimizer=optimizer if balanced else dataclasses.replace(optimizer, per_task=False),
            denominator=c["denominator"],
            judges=regimes.judges(step.tasks, trial.judging),
            accumulate=c["accumulate"],
            standardize=standardize,
            balancer=balancer if balanced else None,
            adapter=adapter,
            widths=_widths(params["heads"], step.tasks),
        )
        cached = step.solver != "gradient" or _cached(program, step.total_steps, most_labels(trial, step.tasks))
        program = dataclasses.replace(program, cached=cached)
        if program.balancer and program.optimizer.per_task and "direction" in program.balancer.needs:
            raise config.ConfigError(
                f"config.optimizer.per_task = True: has moments of each task's gradient, and balancer "
                f'"{c["balancer"]["name"]}" gives one for all: must be False'
            )
        if own_loss := next((t for t in program.specs if registered([t]) and step.solver == "ridge"), None):
            raise config.ConfigError(
                f'regime: a phase in closed form fits squared errors, and task "{own_loss.name}" has loss '
                f'"{loss_of(own_loss)}": must have its kind\'s, or another regime'
            )
        check_statistics(program, shape)
        own, unmatched = rates.multiples(section, trainable, program.blocks) if optimizer.rates else ((), [])
        unused &= set(unmatched)
        stages.append(
            Stage(
                program,
                Hypers(
                    seed=0,
                    lr=step.lr,
                    optimizer=numbers,
                    balancer=weighs if program.balancer else {},
                    adapter=adapts,
                    weights=tuple(t.weight for t in program.specs),
                    steps=step.total_steps,
                    # Batches of each task's sequence that earlier phases have drawn.
                    offset=tuple(drawn.get(t, 0) for t in step.tasks),
                    split=0,
                    patience=c["patience"] if program.select == "best" else 0,
                    rates=own,
                    streams=(*map(stream_of, step.tasks), stream_of(pool_name(step.tasks))),
                ),
                fresh,
                step.total_steps,
                step.select,
            )
        )
        for t in step.tasks:  # Of one_task sampling at most so many: no batch is drawn twice.
            drawn[t] = drawn.get(t, 0) + step.total_steps
    if unused:
        raise config.ConfigError(f"config.optimizer.rates: {min(unused)!r} matches no parameter that any phase trains")
    return tuple(stages)


def _widths(heads: PyTree, tasks: tuple[str, ...]) -> tuple[int, ...]:
    """Return the width of each task's features; nothing if all are the same."""
    found = tuple(int(heads[t]["kernel"].shape[0]) for t in tasks)
    return found if len(set(found)) > 1 else ()


def _adapter(
    model: Model, shape: Shape, step: config.Resolved
) -> tuple[adapt.Adapting, dict[str, float], tuple[str, ...]]:
    """Return (a phase's adapter of the layers in which it trains, its numbers, paths of the parameters that move)."""
    spec, own = json.loads(step.adapt), anatomy(model, shape)
    layers = [path for path in own.dense if re.fullmatch(spec["layers"], path)]
    if not layers:
        raise ValueError(
            f'adapt: layers = "{spec["layers"]}": matches no dense layer of the backbone; there are: '
            + (", ".join(own.dense[:6]) or "none")
        )
    found, numbers = adapt.adapting(spec["name"], spec["options"], layers)
    key = jax.eval_shape(lambda: jax.random.key(0))
    beside = jax.eval_shape(lambda k, p: adapt.adapted(found, numbers, k, p), key, own.params)
    moves = tuple(f"/+{found.name}/{leaf}" for leaf in found.adapter(numbers).moves)
    chosen = trainable_paths(beside, step.trainable, step.tasks)
    trainable = tuple(p for p in chosen if f"/+{found.name}/" not in p or p.endswith(moves))
    used = [layer for layer in layers if any(p.startswith(f"{layer}/+{found.name}/") for p in trainable)]
    if not used:
        raise ValueError(f'adapt = "{found.name}": trainable = {step.trainable}: leaves nothing of it to train')
    return dataclasses.replace(found, layers=tuple(sorted(used))), numbers, trainable


def shapes(model: Model, shape: Shape) -> Weights:
    """Return the shapes of a model's parameters and statistics, for inputs of that shape.

    Raises:
      ConfigError: for a model that can make nothing of such inputs.
    """
    try:
        found = anatomy(model, shape)
    except ValueError as error:
        raise config.ConfigError(f"config.{error}") from error
    return Weights(found.params, found.state)


def check_statistics(program: Program, shape: Shape, shards: int = 1) -> None:
    """Check that a phase which normalises by a batch's own statistics has a batch to take them from.

    Args:
      program: the phase.
      shape: what one input is.
      shards: devices that a batch is spread over.

    Raises:
      ConfigError: for a frozen block that does not rest; a batch in parts, whose update would not be that of the whole
        batch; and one value a channel in a device's share of a batch, which normalising makes zero whatever it is.
    """
    own = anatomy(program.model, shape)
    if isinstance(program.train, frozenset) and not program.cached:
        with config.refused():
            moved = untold(program.model, shape, program.train)
        if moved:
            raise config.ConfigError(
                f"config.model: {moved[0]} would change while its block is frozen: its layer {TOLD}"
            )
    if not program.statistics(own.state):
        return
    if averages(program):
        raise config.ConfigError(
            "config.optimizer: evaluates an average of the parameters, and batch statistics are of those that move: it "
            'must be without (ema = 0), or the model without batch statistics (such as norm="group")'
        )
    with config.refused():
        program.check_whole(own.state)
    train = program.train
    trained = tuple(f"{block}/" for block in train) if isinstance(train, frozenset) else ()
    # A layer that is not Flax's has one value a channel if each input is a list of channels, for all that is known.
    values = [v for block, v in own.values.items() if train is True or f"{block}/".startswith(trained)]
    values = values or [1] * any(len(s) == 1 for s in leaf_shapes(shape))
    if values and min(values) * program.rows // shards == 1:
        spread = f" over {shards} devices" if shards > 1 else ""
        raise config.ConfigError(
            f"config.batch_size = {program.batch}: gives batch statistics one value a channel{spread}, in a phase on "
            f"{', '.join(program.tasks)}, which normalising makes zero: must be larger, or the model without batch "
            'statistics (such as norm="group")'
        )


def make_hypers(seeds: Sequence[int], stages: Sequence[Stage], splits: Sequence[int]) -> Hypers:
    """Return the hyperparameters of stages that share a program, stacked."""
    each = [
        dataclasses.replace(stage.hypers, seed=seed, split=split).arrays()
        for seed, stage, split in zip(seeds, stages, splits, strict=True)
    ]
    return jax.tree.map(lambda *a: np.stack(a), *each)


def boundaries(steps: int, evaluations: int) -> list[int]:
    """Return the steps after which a phase is evaluated: evenly spaced, the last one included.

    >>> boundaries(300, 6)
    [50, 100, 150, 200, 250, 300]
    >>> boundaries(2, 6)
    [1, 2]
    """
    evaluations = min(evaluations, steps)  # More would be none more.
    return sorted({steps * (e + 1) // evaluations for e in range(evaluations)})
