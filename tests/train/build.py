"""Small programs and data for the tests of training."""

import numpy as np

from mtl.config import default, flatten, override, resolve
from mtl.data import load, transfer_split
from mtl.sweep.plan import val_rows_of
from mtl.train import loop
from mtl.train.dataset import make_data
from mtl.train.trial import freshen, stages_of

BASE = override(
    flatten(default()),
    {"model.options": {"hidden": (8, 6)}, "source.total_steps": 12, "target.total_steps": 9, "evaluations": 3},
)


def trial(**changes):
    """A resolved trial on digits; keyword names use __ for the dot."""
    flat = override(BASE, {k.replace("__", "."): v for k, v in changes.items()})
    return resolve(flat, load(flat["data.name"], **flat["data.options"]).tasks)


def data_of(trials, programs):
    table = load(trials[0].config["data"]["name"], **trials[0].config["data"]["options"])
    splits = []
    for t in trials:
        spec = {k: v for k, v in t.config["data"].items() if k not in ("name", "options", "normalize")}
        spec["source"] = tuple(spec["source"])
        splits.append(transfer_split(table, seed=t.seed, **spec))
    return table, make_data(table, splits, programs, val_rows_of(trials[0]))


def run_all(t, chunk_seconds=2.0, executor="map"):
    """Run a trial's phases through the host's loop, alone; return each phase's outcome."""
    table = load(t.config["data"]["name"], **t.config["data"]["options"])
    stages = stages_of(t, tuple(table.x.shape[1:]))
    _, data = data_of([t], [s.program for s in stages])
    (initial,) = loop.initial_weights(t.model(), tuple(table.x.shape[1:]), [t.seed], executor)
    weights, outcomes = initial, []
    for stage in stages:
        (outcome,) = loop.run_phase(
            [t.seed], [stage], [0], [freshen(weights, initial, stage.fresh)], data,
            evaluations=t.config["evaluations"], executor=executor, chunk_seconds=chunk_seconds,
        )  # fmt: skip
        outcomes.append(outcome)
        weights = outcome.weights
    return initial, stages, data, outcomes


def same(a, b):
    """Whether two trees hold the same bits."""
    import jax

    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(left) == len(right) and all(
        np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True) for x, y in zip(left, right, strict=True)
    )
