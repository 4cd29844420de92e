"""Training from a stream: the bits of training in memory, from any step on, whatever the windows."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

pytest.importorskip("grain", reason='needs the extra: pip install "mtl[stream]"')

from mtl.config import flatten, override, resolve
from mtl.config.default import default
from mtl.data import Streamed, make_table, transfer_split
from mtl.tasks import Task
from mtl.train import loop, stream
from mtl.train.dataset import make_data, statistics
from mtl.train.executor import MAP, Executor
from mtl.train.predict import predict
from mtl.train.trial import freshen, stages_of

from .build import same

ROWS, INPUTS = 2600, 6

BASE = override(
    flatten(default()),
    {
        "data.source": ("kind", "rare"),
        "data.target": "goal",
        "data.target_size": 900,
        "data.target_pool": 1000,
        "data.test_size": 60,
        "data.source_size": 1500,
        "data.source_val_size": 600,
        "model.options": {"hidden": (5,)},
        "batch_size": 8,
        "source.total_steps": 21,
        "target.total_steps": 21,
        "evaluations": 2,
    },
)


@functools.cache
def table():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, INPUTS)).astype(np.float32)
    rare = np.where(np.arange(ROWS) % 3 == 0, (x[:, 1] > 0.3).astype(float), np.nan)
    tasks = (Task("kind", "multiclass", num_classes=3), Task("rare", "binary"), Task("goal", "binary"))
    return make_table("toy", x, tasks, {"kind": np.digitize(x[:, 0], (-0.5, 0.5)), "rare": rare, "goal": x[:, 2] > 0})


class Reads:
    """A way to read the table that counts what it is asked for."""

    def __init__(self):
        self.most, self.rows = 0, 0

    def __call__(self, rows):
        assert (np.diff(rows) > 0).all()
        self.most, self.rows = max(self.most, len(rows)), self.rows + len(rows)
        return table().x[rows]


def streamed(reads=None):
    return dataclasses.replace(table(), x=Streamed(table().x.shape, reads or Reads()))


def trial(**changes):
    return resolve(override(BASE, {k.replace("__", "."): v for k, v in changes.items()}), table().tasks)


def run(trials, of, executor=MAP, guards=None):
    """Run trials of one regime as packs, phase by phase, and return all outcomes."""
    spec = {k: v for k, v in trials[0].config["data"].items() if k not in ("name", "options", "normalize")}
    splits = [transfer_split(of, seed=t.seed, **{**spec, "source": tuple(spec["source"])}) for t in trials]
    phases = [stages_of(t, (INPUTS,)) for t in trials]
    initial = loop.initial_weights(trials[0].model(), (INPUTS,), [t.seed for t in trials], MAP)
    weights, found = initial, []
    for number in range(len(phases[0])):
        now = [p[number] for p in phases]
        data = make_data(of, splits, [now[0].program], 900)
        begin = [freshen(w, i, s.fresh) for w, i, s in zip(weights, initial, now, strict=True)]
        outcomes = loop.run_phase(
            [t.seed for t in trials], now, range(len(trials)), begin, data,
            evaluations=2, executor=executor, stream=of.x if isinstance(of.x, Streamed) else None,
            **({"guard_of": guards[number]} if guards else {}),
        )  # fmt: skip
        weights = [o.weights for o in outcomes]
        found.append(outcomes)
    return found


def bits(outcomes):
    return [
        [(o.weights, o.train_loss, o.val_loss, o.diverged_at, o.penalties) for o in of_phase] for of_phase in outcomes
    ]


@pytest.fixture
def small(monkeypatch):
    """Windows of so few rows that every phase has many."""
    monkeypatch.setattr(stream, "WINDOW_BYTES", 60 * 4 * INPUTS)


CASES = {
    "per_task": {"regime": "multitask", "select": "best", "loss__denominator": "labels"},
    "proportional": {"regime": "multitask", "joint_sampling": "proportional", "data__normalize": "standardize"},
    "temperature": {"regime": "multitask", "joint_sampling": "temperature", "temperature": 2.0, "accumulate": 2},
    "features once": {"regime": "linear_probe", "target__total_steps": 200},
    "closed form": {"regime": "ridge_probe", "ridge__choose": "validation"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_stream_trains_to_the_bits_of_memory(case, small):
    trials = [trial(seed=seed, lr=lr, **CASES[case]) for seed, lr in ((0, 1e-3), (0, 1e-2), (1, 1e-3))]
    reads = Reads()
    assert same(bits(run(trials, streamed(reads))), bits(run(trials, table())))
    # Two splits with a block of validation each are the most that is read at a time (a closed form needs them all).
    assert reads.most <= (1800 if case == "closed form" else 2 * 512)
