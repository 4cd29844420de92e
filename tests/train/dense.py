"""A small table of images with dense tasks, a model of pixels, and training it by hand with optax.

What is computed by hand uses nothing of ours but the draws: which rows a batch holds, and which of their labels count.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl.config import default, flatten, override, resolve
from mtl.data import Asked, Streamed, make_table, transfer_split
from mtl.data.scaling import fit
from mtl.tasks import Task
from mtl.train import loop
from mtl.train.begin import freshen
from mtl.train.dataset import make_data
from mtl.train.placement import MAP
from mtl.train.sampling import make_sampler
from mtl.train.stacks import ordered
from mtl.train.trial import make_hypers, stages_of

ROWS, SHAPE, CHANNELS, CLASSES = 120, (4, 3), 2, 3

TASKS = (
    Task("day", "binary"),
    Task("scene", "segmentation", num_classes=CLASSES, shape=SHAPE),
    Task("depth", "dense_regression", shape=SHAPE),
)

BASE = override(
    flatten(default()),
    {
        "data.source": ("day", "depth"),
        "data.target": "scene",
        "data.target_size": 30,
        "data.target_pool": 40,
        "data.test_size": 20,
        "data.source_size": 50,
        "data.source_val_size": 10,
        "data.normalize": "none",
        "model.name": "pixels_of_a_test",
        "model.head_init": "lecun_normal",
        "optimizer.name": "sgd",
        "optimizer.options": {"momentum": 0.75},
        "batch_size": 4,
        "source.total_steps": 6,
        "target.total_steps": 6,
        "evaluations": 2,
        "lr": 0.1,
        "source_lr": 0.1,
    },
)


class Pixels(nn.Module):
    """Four features of a pixel for dense tasks; five of the image for others."""

    tasks: tuple[Task, ...]

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(nn.Dense(4, name="first")(x))
        whole = nn.relu(nn.Dense(5, name="second")(x.mean(axis=(1, 2))))
        return {t.name: x if t.shape else whole for t in self.tasks}


def features(backbone, x):
    """What ``Pixels`` makes of images, for (dense tasks, others)."""
    first, second = backbone["first"], backbone["second"]
    x = jnp.maximum(jnp.einsum("nhwc,cd->nhwd", x, first["kernel"]) + along(first["bias"], 4), 0)
    return x, jnp.maximum(x.mean(axis=(1, 2)) @ second["kernel"] + along(second["bias"], 2), 0)


def along(a, rank):
    return a.reshape(*[1] * (rank - 1), -1)


def raw_labels(depth_at=1e6, depth_times=1.0):
    """Labels as they come: most images lack a depth, some a scene, and the others some of their pixels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, *SHAPE, CHANNELS)).astype(np.float32)
    scene = np.digitize(x[..., 0], (-0.4, 0.4))
    depth = depth_times * (depth_at + x[..., 1].astype(np.float64))
    gone = rng.random((2, ROWS, *SHAPE)) < 0.3
    scene[gone[0]], depth[gone[1]] = -1, np.nan
    scene[::9], depth[np.arange(ROWS) % 4 > 0] = -1, np.nan
    return x, {"day": (x.mean(axis=(1, 2, 3)) > 0).astype(float), "scene": scene, "depth": depth}


@functools.cache
def table(depth_at=1e6, depth_times=1.0):
    x, labels = raw_labels(depth_at, depth_times)
    return make_table("toy", x, TASKS, labels, pixels=False)


def streamed():
    x, labels = raw_labels()
    return make_table("toy", Streamed(x.shape, lambda rows: x[rows]), TASKS, labels, pixels=False)


def trial(of=None, **changes):
    """Return a resolved trial; in keywords, two underscores stand for a dot."""
    changes = {k.replace("__", "."): v for k, v in changes.items()}
    return resolve(override(BASE, {"regime": "multitask", **changes}), table() if of is None else of)


def split_of(t, of):
    return transfer_split(of, Asked.of({**t.config["data"], "seed": t.seed}))


def stages(t):
    return stages_of(t, (*SHAPE, CHANNELS), t.config["data"]["normalize"] != "none")


def data_of(trials, of, programs):
    splits = [split_of(t, of) for t in trials]
    scalings = [fit(of, s, t.config["data"]["normalize"]) for s, t in zip(splits, trials, strict=True)]
    return make_data(of, splits, programs, 16, scalings)


def initial_of(*trials):
    return loop.initial_weights(trials[0].model(), (*SHAPE, CHANNELS), [t.seed for t in trials], MAP)


def run(trials, of=None, edit=lambda stage: stage, alone=None, **options):
    """Run trials of one regime as packs, or one of them alone on the data of all; return the outcomes of each phase."""
    of = table() if of is None else of
    every, splits = trials, list(range(len(trials)))
    if alone is not None:
        trials, splits = [trials[alone]], [alone]
    phases = [[edit(s) for s in stages(t)] for t in trials]
    initial = weights = initial_of(*trials)
    found = []
    for now in zip(*phases, strict=True):
        data = data_of(every, of, [now[0].program])
        begin = [freshen(w, i, s.fresh) for w, i, s in zip(weights, initial, now, strict=True)]
        outcomes = loop.run_phase(
            [t.seed for t in trials], list(now), splits, begin, data,
            **{"evaluations": 2, "placement": MAP, "stream": of.x if isinstance(of.x, Streamed) else None, **options},
        )  # fmt: skip
        weights = [o.weights for o in outcomes]
        found.append(outcomes)
    return found


def draws(t, stage):
    """Yield (rows, {task: which of them count}) of each of a phase's batches."""
    data = data_of([t], table(), [stage.program]).of(jnp.int32(0))
    lane = jax.tree.map(lambda a: jnp.asarray(a[0]), make_hypers([t.seed], [stage], [0]))
    sample = jax.jit(make_sampler(stage.program, lane, data))
    names = [task.name for task in ordered(stage.program)]
    for step in range(stage.steps):
        drawn = sample(jnp.int32(step))
        mask = np.asarray(drawn.mask)
        yield np.asarray(drawn.rows), {name: mask[:, i] for i, name in enumerate(names)}


def coded(t, maps=None):
    """Return {task: (labels with zeros where missing, which are there)}; depths in units of the training labels'.

    ``maps``: of each task, whose label each row has; its own if not given.
    """
    labels = {task: y[slice(None) if maps is None else maps[task]] for task, y in raw_labels()[1].items()}
    train = split_of(t, table()).train["depth"]
    known = labels["depth"][train]
    known = known[~np.isnan(known)]
    depth = (labels["depth"] - known.mean()) / known.std()
    return {
        "day": (labels["day"].astype(np.float32), np.ones(ROWS, bool)),
        "scene": (np.maximum(labels["scene"], 0), labels["scene"] >= 0),
        "depth": (np.nan_to_num(depth).astype(np.float32), ~np.isnan(labels["depth"])),
    }


def sums(params, x, labels):
    """Return the sum of each task's losses; ``labels`` as ``coded`` has them, of a batch."""
    pixels, whole = features(params["backbone"], x)
    return sums_at(params["heads"], {"pixels": pixels, "whole": whole}, labels)


def sums_at(heads, seen, labels):
    """Return the sum of each task's losses, from features."""
    pixels, whole, found = seen["pixels"], seen["whole"], {}
    for task, (y, there) in labels.items():
        head = heads[task]
        if task == "day":
            z = (whole @ head["kernel"] + along(head["bias"], 2))[:, 0]
            each = jnp.where(there, optax.sigmoid_binary_cross_entropy(z, y), 0)
        else:
            z = jnp.einsum("nhwc,cd->nhwd", pixels, head["kernel"]) + along(head["bias"], 4)
            if task == "scene":
                each = optax.softmax_cross_entropy_with_integer_labels(z, y)
            else:
                each = jnp.square(z[..., 0] - y)
            count = there.reshape(len(y), -1).sum(axis=1)
            each = jnp.where(there, each, 0).reshape(len(y), -1).sum(axis=1) / jnp.maximum(count, 1)
        found[task] = each.sum()
    return found


def batch_of(labels, rows, mask):
    """Return the labels of a batch, of which only those count that the draw says."""
    return {
        task: (y[rows], there[rows] & mask[task].reshape(-1, *[1] * (there.ndim - 1)))
        for task, (y, there) in labels.items()
        if task in mask
    }


def by_hand(t, stage, params, maps=None, change=lambda parts: parts, ema=0.0):
    """Return (the parameters after a phase in which all of them move, how often a head rested).

    The trunk and each head have an optimizer; a head rests, its optimizer too, in steps whose batch has no label of its
    task. ``change`` makes the parameters that a loss takes of those that move.
    """
    x, labels = raw_labels()[0], coded(t, maps)
    parts = {"backbone": params["backbone"], **{task: params["heads"][task] for task in stage.program.tasks}}
    tx = optax.sgd(float(stage.hypers.lr), momentum=0.75)
    states = {name: tx.init(part) for name, part in parts.items()}
    average = dict(parts)

    @jax.jit
    def gradient(parts, x, labels):
        def loss(parts):
            parts = change(dict(parts))
            return sum(sums({"backbone": parts["backbone"], "heads": parts}, x, labels).values()) / len(x)

        return jax.grad(loss)(parts)

    rested = 0
    for rows, mask in draws(t, stage):
        grads = gradient(parts, x[rows], batch_of(labels, rows, mask))
        for name in parts:
            if name == "backbone" or mask[name].any():
                updates, states[name] = tx.update(grads[name], states[name], parts[name])
                parts[name] = optax.apply_updates(parts[name], updates)
                average[name] = jax.tree.map(lambda a, p: ema * a + (1 - ema) * p, average[name], parts[name])
            else:
                rested += 1
    found = change(average if ema else parts)
    return {"backbone": found["backbone"], "heads": {n: found[n] for n in stage.program.tasks}}, rested
