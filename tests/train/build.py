"""A small table, and the programs, lanes and data that the tests of training share.

All tests draw on few programs (one optimizer, one model, three tasks), since compiling them is what takes time.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtl.config import default, flatten, override, resolve
from mtl.data import Asked, make_table, transfer_split
from mtl.data.scaling import fit
from mtl.params import combine
from mtl.tasks import Task
from mtl.train import judge, loop, phase, step
from mtl.train.begin import freshen
from mtl.train.dataset import make_data
from mtl.train.placement import MAP
from mtl.train.program import Frozen, Weights
from mtl.train.pull import sums_of
from mtl.train.sampling import Batch, Indices, make_gather, make_sampler
from mtl.train.stacks import columns, ordered
from mtl.train.trial import boundaries, make_hypers, stages_of

ROWS, INPUTS, VAL_ROWS = 240, 8, 30

#: Heads are not zero, so that a head which decays by mistake is seen to move; the rate of decay and the bound of
#: the gradient's norm are large enough to show in every step.
BASE = override(
    flatten(default()),
    {
        "data.source": ("kind", "rare"),
        "data.target": "goal",
        "data.target_size": 40,
        "data.target_pool": 80,
        "data.test_size": 60,
        "data.source_size": 90,
        "data.source_val_size": 20,
        "data.normalize": "none",
        "model.options": {"hidden": (6, 5)},
        "model.head_init": "lecun_normal",
        "batch_size": 8,
        "source.total_steps": 12,
        "target.total_steps": 12,
        "evaluations": 3,
        "select": "last",
        "lr": 0.02,
        "source_lr": 0.02,
        "optimizer.weight_decay": 0.1,
        "optimizer.clip": 0.05,
    },
)


@functools.cache
def table():
    """Three tasks over 240 rows: a class, a binary task with few labels, and a target that misses some labels.

    The first input names the row, so that a test can tell which rows a batch holds (see ``rows_of``).
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, INPUTS)).astype(np.float32)
    x[:, 0] = np.arange(ROWS) / ROWS
    score = x[:, 1] + 0.5 * x[:, 2] * x[:, 3]
    rare = np.where(np.arange(ROWS) % 5 == 0, (score > 0.3).astype(float), np.nan)
    goal = np.where(np.arange(ROWS) % 7 == 3, np.nan, (score > 0).astype(float))
    tasks = (Task("kind", "multiclass", num_classes=3), Task("rare", "binary"), Task("goal", "binary"))
    return make_table("toy", x, tasks, {"kind": np.digitize(score, (-0.5, 0.5)), "rare": rare, "goal": goal})


def finish(stage, hypers, moving, frozen):
    """Return what a phase ends with: the last state, or the best on validation, with adapters merged."""
    last = (phase.shown(stage.program, moving), moving.state)
    best = moving.best
    trainable, state = last if stage.program.select == "last" else (best.trainable, best.state)
    return Weights(phase.merged(stage.program, hypers, phase.whole(stage.program, trainable, frozen)), state)


def run_pure(stages, hypers, initial, data, evaluations=1):
    """Return (weights, validation losses of each phase) of a trial without the host: no packs, chunks or files.

    One pure function of the same parts, which stands under ``jit`` and ``vmap`` as it is; ``hypers`` has no lanes.
    """
    weights, curves = initial, []
    for stage, own in zip(stages, hypers, strict=True):
        program, begin, losses = stage.program, 0, []
        weights = freshen(weights, initial, stage.fresh)
        moving, frozen = phase.start(program, own, weights)
        fixed = phase.fix(program, own.split, weights, frozen, data)
        for end in boundaries(stage.steps, evaluations):
            moving = phase.advance(program, own, moving, fixed, data, jnp.int32(begin), jnp.int32(end))
            now = Weights(phase.whole(program, phase.shown(program, moving), frozen), moving.state)
            judged = judge.evaluate(program.model, program.tasks, program.standardize, own.split, now, data)
            moving = phase.track_best(program, own, moving, judged)
            losses.append(judged.losses)
            begin = end
        weights = finish(stage, own, moving, frozen)
        curves.append(jnp.stack(losses))
    return weights, tuple(curves)


def rows_of(x):
    """Return the rows of the table that inputs come from."""
    return np.rint(np.asarray(x)[..., 0] * ROWS).astype(int)


def trial(shape=None, **changes):
    """Return a resolved trial on the small table; in keywords, two underscores stand for a dot.

    ``shape``: of an input, if it is another than the table's.
    """
    of = table() if shape is None else dataclasses.replace(table(), x=np.zeros((ROWS, *shape), np.float32))
    return resolve(override(BASE, {k.replace("__", "."): v for k, v in changes.items()}), of)


def split_of(t):
    """Return a trial's split of the small table."""
    return transfer_split(table(), Asked.of({**t.config["data"], "seed": t.seed}))


def stages(t):
    """Return a trial's stages."""
    return stages_of(t, table().x.shape[1:], t.config["data"]["normalize"] != "none")


def data_of(*trials, from_table=None):
    """Return the stacked data of trials, with the pools of every regime: one structure, so fewer compilations.

    Pools are padded to powers of two: up to 60 target labels, the largest of them to 128 rows.
    """
    regimes = ("multitask", "multitask_finetune", "finetune")
    programs = [s.program for regime in regimes for s in stages(trial(regime=regime))]
    programs += [s.program for t in trials for s in stages(t) if s.program.standardize]
    of, splits = from_table or table(), [split_of(t) for t in trials]
    scalings = [fit(of, s, t.config["data"]["normalize"]) for s, t in zip(splits, trials, strict=True)]
    return make_data(of, splits, programs, VAL_ROWS, scalings)


@functools.partial(jax.jit, static_argnums=0)
def _batches(program, lane, data, first):
    own = data.of(lane.split)
    sample = make_sampler(program, lane, own)
    gather = make_gather(program, own, Frozen({}))
    return jax.vmap(lambda i: gather(sample(i)))(first + jnp.arange(400))


def by_task(program, batch):
    """Return a batch whose labels and masks are looked up by task."""
    names = [t.name for t in ordered(program)]
    labels = {}
    for group in columns(ordered(program)):
        own = batch.labels[group.names[0]]
        labels |= {t: own[..., i] if own.ndim == batch.mask.ndim else own[..., i, :] for i, t in enumerate(group.names)}
    return Batch(batch.x, labels, {t: batch.mask[..., i] for i, t in enumerate(names)})


def batch_of(program, x, labels, masks):
    """Return a batch from labels and masks by task: undo ``by_task``."""
    groups = {g.names[0]: jnp.stack([labels[t] for t in g.names], axis=1) for g in columns(ordered(program))}
    return Batch(x, groups, jnp.stack([masks[t.name] for t in ordered(program)], axis=1))


def batches(stage, data, seed=0):
    """Return a stage's first 400 batches, stacked, by task."""
    # What trains does not decide what is drawn: phases that differ in nothing else share an executable.
    program = dataclasses.replace(stage.program, trainable=(), select="last", cached=False)
    return jax.tree.map(np.asarray, by_task(program, _batches(program, hypers_of(stage, seed), data, jnp.int32(0))))


def initial_of(*trials):
    """Return the trials' initial weights."""
    return loop.initial_weights(trials[0].model(), table().x.shape[1:], [t.seed for t in trials], MAP)


def loss_on(program, train, hypers, trainable, frozen, state, batch, rng):
    """Return (the loss of a batch, new batch statistics)."""
    _, weighed = step.weigh(program, hypers, batch.mask)
    params = combine(trainable, frozen)
    features, state = program.model.trunk(params["backbone"], state, batch.x, train=train, rng=rng)
    return jnp.sum(weighed * sums_of(program, params, features, batch)), state


def update_on(program, hypers, k, moving, frozen, batch):
    """Return what one update on a batch comes to."""
    program = dataclasses.replace(program, cached=False)
    source = step.Source(program, Indices(jnp.zeros(len(batch.x), jnp.int32), batch.mask), lambda _: batch)
    return step.update(program, hypers, k, moving, Frozen(frozen), source)


def hypers_of(stage, seed=0, split=0):
    """Return one lane, without a leading axis."""
    return jax.tree.map(lambda a: jnp.asarray(a[0]), make_hypers([seed], [stage], [split]))


def run_all(t, data=None, initial=None, **options):
    """Run a trial's phases through the host's loop, alone; return (initial weights, stages, data, outcomes)."""
    data = data_of(t) if data is None else data
    initial = initial_of(t)[0] if initial is None else initial
    weights, outcomes = initial, []
    for stage in stages(t):
        (outcome,) = run_phase([t], [stage], data, [freshen(weights, initial, stage.fresh)], **options)
        outcomes.append(outcome)
        weights = outcome.weights
    return initial, stages(t), data, outcomes


def run_phase(trials, phases, data, weights, splits=None, **options):
    """Run one phase of each trial as a pack; the i-th trains on the i-th split if not told otherwise."""
    options = {"evaluations": trials[0].config["evaluations"], "placement": MAP} | options
    splits = list(range(len(trials))) if splits is None else splits
    return loop.run_phase([t.seed for t in trials], phases, splits, weights, data, **options)


def with_steps(stage, steps):
    """Return a stage with another number of steps."""
    return dataclasses.replace(stage, steps=steps, hypers=dataclasses.replace(stage.hypers, steps=steps))


def same(a, b):
    """Return whether two trees hold the same bits."""
    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(left) == len(right) and all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in zip(left, right, strict=True)
    )


def gap(a, b):
    """Return the largest absolute difference between two trees' leaves."""
    return max(
        float(np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64))))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def curves(outcome):
    """Return the training losses of an outcome, [tasks, evaluations]."""
    return np.asarray(list(outcome.train_loss.values()))
