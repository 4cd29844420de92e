"""Our side: the engine's own compiled steps, from a config as a user's trial has them."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import CASES, MISSING, inputs, labels
from benchmarks.side import Side
from mtl import data as sources
from mtl.config import Trial, default, flatten, override, resolve
from mtl.cpu import convolution, replace
from mtl.host import memory
from mtl.regimes import Phase
from mtl.sweep.plan import make_plan, split_of, table_of, val_rows_of
from mtl.tasks import Task
from mtl.train import descent, loop, pack, phase, sampling
from mtl.train.begin import freshen
from mtl.train.dataset import make_data
from mtl.train.flops import flops_per_step
from mtl.train.placement import LANES, MAP, WHOLE, Placement
from mtl.train.program import Weights
from mtl.train.trial import make_hypers

#: Rows beside those that are trained on: the other pool, validation and test each need some.
_OTHERS = 64


def _table(case: str, missing: float) -> Any:
    c = CASES[case]
    x = inputs(c, c.rows * 2)
    y = labels(c, len(x), missing)
    if c.binary:
        tasks = [Task(f"task_{i}", "binary") for i in range(c.binary)]
        named: dict[str, Any] = {t.name: y[:, i] for i, t in enumerate(tasks)}
    else:
        tasks, named = [Task("task_0", "multiclass", num_classes=c.outputs)], {"task_0": y}
    spare = Task("spare", "binary")  # Every trial has a source and a target: the one that is not timed.
    return sources.make_table(case, x, [*tasks, spare], {**named, "spare": (np.arange(len(x)) % 2).astype(np.float32)})


def trial_of(name: str, regime: str = "", missing: float = MISSING, changes: Mapping[str, Any] | None = None) -> Trial:
    """Return a case's trial.

    Args:
      name: of the case.
      regime: by default that whose last phase trains everything from random weights.
      missing: share of the labels of binary tasks that are missing.
      changes: fields of the config.
    """
    case = CASES[name]
    trained = case.rows + _OTHERS
    # The tasks of a phase of several are the source's, which share their rows; a task alone is the target.
    source = tuple(f"task_{i}" for i in range(case.binary)) or ("spare",)
    target = {"data.target": "spare" if case.binary else "task_0", "data.target_size": _OTHERS}
    target |= {"data.target_pool": _OTHERS, "data.source_size": trained, "data.source_val_size": _OTHERS}
    if not case.binary:
        target |= {"data.target_size": trained, "data.target_pool": trained, "data.val_fraction": _OTHERS / trained}
        target |= {"data.source_size": _OTHERS, "data.source_val_size": 8}
    fields = {
        "name": "bench",
        "regime": regime or ("source" if case.binary else "scratch"),
        "data.name": f"bench_{name}",
        "data.options": {"case": name, "missing": missing},
        "data.source": source,
        "data.test_size": _OTHERS,
        "model.name": case.backbone,
        "model.options": case.options,
        "batch_size": case.batch,
        "source.total_steps": 1 << 20,
        "target.total_steps": 1 << 20,
        **target,
        **(changes or {}),
    }
    sources.register(f"bench_{name}")(_table)
    if case.backbone == "foreign":
        importlib.import_module("benchmarks.foreign")  # It registers itself, as a config file would.
    return resolve(override(flatten(default()), fields), _table(name, missing))


def make(
    case: str,
    regime: str = "",
    missing: float = MISSING,
    masks: bool = True,
    xlas_depthwise: bool = False,
    accumulate: int = 1,
    devices: int = 1,
    kind: str = "map",
    optimizer: str = "adam",
    balancer: str = "equal",
    lora: str = "",
) -> Side:
    """Return the engine's steps of a case; one unit is a step.

    Args:
      case: its name.
      regime: whose last phase is timed; by default that which trains everything from random weights.
      missing: share of the labels of binary tasks that are missing.
      masks: false for labels that the compiler knows to be all present, so that no trace of a mask is left.
      xlas_depthwise: whether depthwise convolutions are XLA's own.
      accumulate: micro-batches.
      optimizer, balancer: their names.
      lora: pattern of the layers that are adapted by LoRA (rank 8) while the rest of the trunk stays; empty for none.
      devices: that each batch is spread over, as ``--mesh=data:N`` does; on a CPU a device is a core.
      kind: ``map`` for one lane's steps; ``vmap`` for those of two side by side, the fewest that accelerators run.
    """
    memory.keep()  # As our workers do.
    if devices > 1:
        jax.config.update("jax_num_cpu_devices", devices)
    how = Placement(kind, data=devices)
    if xlas_depthwise:
        convolution.depthwise = _xlas_depthwise
    if not masks:
        _without_masks()
    changes = {"accumulate": accumulate, "optimizer.name": optimizer, "balancer.name": balancer}
    if lora:
        regime, changes["regimes"] = "adapted", {"adapted": (Phase(adapt=("lora", {"layers": lora})),)}
    trial = trial_of(case, regime, missing, changes)
    plan = make_plan([trial])
    stage = plan.nodes[plan.chains[trial.hash][-1]].stage
    program, table, split = stage.program, table_of(trial), split_of(trial)
    arrays = make_data(table, [split], [program], val_rows_of(trial))
    shape = tuple(table.x.shape[1:])
    first = loop.initial_weights(program.model, shape, [0], MAP)[0]
    whole = jax.tree.map(lambda a: np.stack([a, a]), freshen(first, first, stage.fresh))
    lanes = jax.tree.map(lambda a: np.repeat(a, 2, axis=0), make_hypers([0], [stage], [0]))
    if program.adapter is not None:
        whole = Weights(jax.tree.map(np.asarray, pack.adapt_fn(program)(lanes, whole.params)), whole.state)
    trainable, frozen = phase.divide(program, whole.params)
    moving = jax.tree.map(np.array, pack.begin_fn(program, how)(lanes, trainable, whole.state))
    moving = loop.place(how, moving, pack.specs(how))
    lanes, frozen, whole = loop.place(how, (lanes, frozen, whole), LANES)
    arrays = loop.place(how, arrays, WHOLE)
    number = functools.partial(_number, how)
    fixed = pack.fix_fn(program, how)(number(1), lanes.split, whole, frozen, arrays)
    advance = pack.advance_fn(program, how)
    held = [moving, 0]
    begun = time.perf_counter()
    made = advance.executable(number(1), lanes, moving, fixed, arrays, number(0), number(0))
    took, cost = time.perf_counter() - begun, made.cost_analysis() or {}

    def run(units: int) -> None:
        begin = int(held[1])
        held[0] = advance(number(1), lanes, held[0], fixed, arrays, number(begin), number(begin + units))
        held[1] = begin + units
        jax.block_until_ready(held[0])

    about = {"flops": _flops(program, shape), "bytes": float(cost.get("bytes accessed", 0.0)), "compile": took}
    about |= {"cached": program.cached, "batch": program.rows}
    return Side(run, about)


def _flops(program: Any, shape: tuple[int, ...]) -> float:
    """Return a step's operations by the definition of its layers, not by what kernels make of them."""
    own, replace.used = replace.used, lambda: False
    try:
        return flops_per_step(program, shape)
    finally:
        replace.used = own


def _xlas_depthwise(stride: int, pads: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=layout, feature_group_count=x.shape[-1]
    )


def _number(how: Placement, n: int) -> Any:
    return loop.place(how, np.int32(n), WHOLE)


def make_features(case: str) -> Side:
    """Return the computation of a frozen trunk's features, which a linear probe does once; one unit is all rows."""
    trial = trial_of(case, "linear_probe", 0.0)
    plan = make_plan([trial])
    stage = plan.nodes[plan.chains[trial.hash][-1]].stage
    program, table = stage.program, table_of(trial)
    arrays = make_data(table, [split_of(trial)], [program], val_rows_of(trial))
    first = loop.initial_weights(program.model, tuple(table.x.shape[1:]), [0], MAP)[0]
    whole = jax.tree.map(lambda a: np.stack([a, a]), first)
    _, frozen = phase.divide(program, whole.params)
    fix = functools.partial(pack.fix_fn(program, MAP), jnp.int32(1), np.zeros(2, np.int32), whole, frozen, arrays)

    def run(units: int) -> None:
        for _ in range(units):
            jax.block_until_ready(fix())

    return Side(run, {})


def _without_masks() -> None:
    """Tell the compiler that every label is present: it then drops the masks, and a plain mean is left."""
    own = sampling.make_sampler

    def make_sampler(*args: Any) -> Any:
        draw = own(*args)

        def plain(step: Any) -> sampling.Indices:
            drawn = draw(step)
            ones = jnp.ones(drawn.mask.shape, bool)
            return sampling.Indices(drawn.rows, ones)

        return plain

    descent.make_sampler = make_sampler
