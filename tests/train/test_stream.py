"""Training from a stream: the bits of training in memory, from any step on, whatever the windows."""

import contextlib
import dataclasses
import functools
import hashlib
import subprocess
import sys

import jax
import numpy as np
import pytest

pytest.importorskip("grain", reason='needs the extra: pip install "mtl[stream]"')

from mtl.config import flatten, override, resolve
from mtl.config.default import default
from mtl.data import Asked, Streamed, make_table, transfer_split
from mtl.tasks import Task
from mtl.train import loop, stream
from mtl.train.begin import freshen
from mtl.train.dataset import make_data
from mtl.train.placement import MAP, Placement
from mtl.train.trial import make_hypers, stages_of
from tests.train.build import same

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
        "select": "last",
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
    return resolve(override(BASE, {k.replace("__", "."): v for k, v in changes.items()}), table())


def run(trials, of, placement=MAP, guards=None):
    """Run trials of one regime as packs, phase by phase, and return all outcomes."""
    seeds = sorted({t.seed for t in trials})
    splits = [transfer_split(of, Asked.of({**trials[0].config["data"], "seed": seed})) for seed in seeds]
    phases = [stages_of(t, (INPUTS,)) for t in trials]
    initial = loop.initial_weights(trials[0].model(), (INPUTS,), [t.seed for t in trials], MAP)
    weights, found = initial, []
    for number in range(len(phases[0])):
        now = [p[number] for p in phases]
        data = make_data(of, splits, [now[0].program], 900)
        begin = [freshen(w, i, s.fresh) for w, i, s in zip(weights, initial, now, strict=True)]
        outcomes = loop.run_phase(
            [t.seed for t in trials], now, [seeds.index(t.seed) for t in trials], begin, data,
            evaluations=2, placement=placement, stream=of.x if isinstance(of.x, Streamed) else None,
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
    monkeypatch.setattr(stream, "_MOST_STEPS", 4)


CASES = {
    "per_task": {"regime": "multitask", "select": "best", "loss__denominator": "labels"},
    "rows": {"regime": "multitask", "joint_sampling": "rows", "data__normalize": "standardize"},
    "temperature": {"regime": "multitask", "joint_sampling": "temperature", "temperature": 2.0, "accumulate": 2},
    "one_task": {"regime": "multitask", "joint_sampling": "one_task", "round_steps": 5},
    "features once": {"regime": "linear_probe", "target__total_steps": 200},
    "closed form": {"regime": "ridge_probe", "ridge__choose": "validation"},
}
QUICK = ("temperature",)


@pytest.mark.parametrize("case", [pytest.param(c, marks=[] if c in QUICK else [pytest.mark.slow]) for c in CASES])
def test_a_stream_trains_to_the_bits_of_memory(case, small):
    trials = [trial(seed=seed, lr=lr, **CASES[case]) for seed, lr in ((0, 1e-3), (0, 1e-2), (1, 1e-3))]
    reads = Reads()
    assert same(bits(run(trials, streamed(reads))), bits(run(trials, table())))
    # Two splits with a block of validation each are the most that is read at a time, but for statistics, which are
    # fitted in blocks of 2 MiB, and a closed form, which needs all of validation.
    assert reads.most <= (2 * 900 if case in ("rows", "closed form") else 2 * 512)


class Keeps(loop.Checkpointer):
    """Keeps every snapshot, or begins from one."""

    def __init__(self, begin=None):
        self.begin, self.kept = begin, []

    def restore(self):
        return self.begin

    def boundary(self, take):
        state = take()
        moving = {path: array.copy() for path, array in state.moving.items()}
        self.kept.append(
            dataclasses.replace(
                state, moving=moving, train=list(state.train), val=list(state.val), score=list(state.score)
            )
        )


def test_a_stream_goes_on_from_every_step(small, monkeypatch):
    trials, keeps = [trial(seed=3, regime="scratch")], Keeps()
    with monkeypatch.context() as patch:
        patch.setattr(stream, "_MOST_STEPS", 1)  # A snapshot after every step.
        whole = run(trials, streamed(), guards=[lambda part: keeps])
    assert [s.at for s in keeps.kept] == list(range(1, 43))
    for kept in keeps.kept:
        rest = run(trials, streamed(), guards=[lambda part, kept=kept: Keeps(kept)])
        assert same(bits(rest), bits(whole)), kept.at


FRESH = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from mtl.params import flatten, unflatten
from mtl.train import stream
from mtl.train.loop import Snapshot
from tests.train import test_stream as t

stream.WINDOW_BYTES, stream._MOST_STEPS = 60 * 4 * t.INPUTS, 4
held = np.load(sys.argv[1])
moving = {k.removeprefix("moving/"): held[k] for k in held if k.startswith("moving/")}
kept = Snapshot(moving, int(held["at"]), list(held["train"]), list(held["val"]), list(held["score"]), 0.0, 1)
print(t.digest(t.run([t.nine()], t.streamed(), guards=[lambda part: t.Keeps(kept)])))
"""


def nine():
    """Return a trial of nine steps."""
    return trial(seed=3, regime="scratch", source__total_steps=4, target__total_steps=5)


def digest(outcomes):
    """Return the sha256 of all that outcomes hold."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(bits(outcomes)):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


@pytest.mark.slow
def test_a_fresh_process_goes_on_from_every_step(small, tmp_path, monkeypatch):
    keeps = Keeps()
    monkeypatch.setattr(stream, "_MOST_STEPS", 1)
    whole = digest(run([nine()], streamed(), guards=[lambda part: keeps]))
    assert [s.at for s in keeps.kept] == list(range(1, 10))
    for kept in keeps.kept:
        moving = {f"moving/{path}": array for path, array in kept.moving.items()}
        file = tmp_path / f"{kept.at}.npz"
        curves = {name: np.array(getattr(kept, name)) for name in ("train", "val", "score")}
        np.savez(file, at=kept.at, **curves, **moving)
        done = subprocess.run([sys.executable, "-c", FRESH, str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [whole], kept.at


@pytest.mark.slow
def test_a_batch_spread_over_devices_is_streamed_to_the_bits_of_memory(small):
    two = Placement("map", data=2)
    trials = [trial(seed=seed, regime="finetune") for seed in (0, 1)]
    assert same(bits(run(trials, streamed(), two)), bits(run(trials, table(), two)))


def test_each_device_is_given_its_own_part_of_a_batch(small):
    t, two = trial(regime="multitask"), Placement("map", data=2)
    of = streamed()
    split = transfer_split(of, Asked.of(t.config["data"]))
    (stage,) = stages_of(t, (INPUTS,))
    program = stage.program
    lanes = jax.tree.map(lambda a: np.repeat(a, 2, axis=0), make_hypers([0], [stage], [0]))
    feed = stream.make_feed(program, stage.steps, 1, lanes, make_data(of, [split], [program], 900), two, of.x)
    with contextlib.closing(feed):
        feed.begin(0)
        reach = feed.at(0)
    _, (x, place) = reach.data
    blocks, half = program.rows // program.batch, program.batch // 2
    drawn = np.asarray(reach.lanes.picks.rows)[0, : reach.end].reshape(reach.end, blocks, 2, half)
    for device in range(2):
        rows = drawn[:, :, device].ravel()
        held = next(s.data for s in x.addressable_shards if s.index[0].start == device)
        np.testing.assert_array_equal(np.asarray(held)[0][np.asarray(place)[device][rows]], table().x[rows])
        assert (np.asarray(held)[0] != 0).any(axis=1).sum() == len(np.unique(rows))
