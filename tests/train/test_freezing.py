"""What a phase does not train keeps its bits, and costs nothing: parameters, opt_state, norms, statistics, FLOPs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl import params as paths
from mtl.models import anatomy, build
from mtl.optim import optimizer
from mtl.tasks import Task
from mtl.train import phase
from mtl.train.descent import Descent
from mtl.train.program import Frozen, Program, Weights
from mtl.train.sampling import Batch
from mtl.train.trial import shapes
from tests.train.build import (
    batch_of,
    batches,
    data_of,
    gap,
    hypers_of,
    initial_of,
    loss_on,
    run_all,
    run_phase,
    same,
    stages,
    table,
    trial,
    update_on,
)


@pytest.fixture(scope="module")
def probe():
    """A linear probe, run: (trial, initial weights, stages, data, outcomes)."""
    t = trial(regime="linear_probe")
    return t, *run_all(t)


def test_frozen_leaves_keep_their_bits_under_decay_and_clipping(probe):
    _, initial, (source, head), _, (first, second) = probe
    assert source.program.optimizer.clip
    assert head.hypers.optimizer["weight_decay"]
    before, after = first.weights.params, second.weights.params
    assert same(before["backbone"], after["backbone"])
    for task in ("kind", "rare"):
        assert same(before["heads"][task], after["heads"][task])
    for name, leaf in after["heads"]["goal"].items():
        assert (leaf != before["heads"]["goal"][name]).all()
    # The source phase: everything moves, but for the head of the task that it does not see.
    assert same(before["heads"]["goal"], initial.params["heads"]["goal"])
    for part in ("backbone", "kind", "rare"):
        was, now = (p.get(part, p["heads"].get(part)) for p in (initial.params, before))
        for leaf, old in zip(jax.tree.leaves(now), jax.tree.leaves(was), strict=True):
            assert (leaf != old).any()


def test_optimizer_state_holds_trainables_only(probe):
    _, initial, (source, head), _, _ = probe
    goal = paths.count(initial.params["heads"]["goal"])
    for stage, counts, moving in (
        (head, 1, goal),
        (source, 1 + 4, paths.count(initial.params) - goal),
    ):
        started, frozen = phase.start(stage.program, hypers_of(stage), initial)
        # Adam's two moments of what moves, and its count, once for the trunk and once a column of the heads.
        assert paths.count(started.opt_state) == 2 * moving + counts
        assert paths.count(started.trainable) == moving
        assert paths.count(started.trainable) + paths.count(frozen) == paths.count(initial.params)


def test_ten_steps_of_a_part_equal_optax_on_that_part_alone():
    """The oracle has its own forward pass and loss; its clipping sees the trainable subtree's gradients only."""
    t = trial(regime="gradual", target__total_steps=30)
    last, data, (initial,) = stages(t)[2], data_of(t), initial_of(trial())
    assert last.steps == 10
    assert last.program.trainable == (
        "backbone/dense_1/bias", "backbone/dense_1/kernel", "heads/goal/bias", "heads/goal/kernel",
    )  # fmt: skip
    (outcome,) = run_phase([t], [last], data, [initial])
    drawn = batches(last, data)
    fixed = initial.params["backbone"]["dense_0"]

    def loss(part, x, y):
        h = jax.nn.relu(x @ fixed["kernel"] + fixed["bias"][None])
        h = jax.nn.relu(h @ part["dense"]["kernel"] + part["dense"]["bias"][None])
        z = (h @ part["head"]["kernel"] + part["head"]["bias"][None])[:, 0]
        return jnp.mean(jnp.logaddexp(z, 0) - z * y)

    gradient = jax.jit(jax.grad(loss))
    oracle = optax.chain(optax.clip_by_global_norm(0.05), optax.adamw(0.02, weight_decay=0.1))
    update = jax.jit(oracle.update)
    part = {"dense": initial.params["backbone"]["dense_1"], "head": initial.params["heads"]["goal"]}
    state, clipped = oracle.init(part), 0
    for k in range(10):
        grads = gradient(part, drawn.x[k], drawn.labels["goal"][k])
        clipped += float(optax.tree.norm(grads)) > 0.05
        updates, state = update(grads, state, part)
        part = jax.tree.map(np.add, part, updates)
    assert clipped >= 5, "the case must be one in which the bound is felt"
    found = outcome.weights.params
    assert gap(found["backbone"]["dense_1"], part["dense"]) < 1e-6
    assert gap(found["heads"]["goal"], part["head"]) < 1e-6
    assert same(found["backbone"]["dense_0"], fixed)


def test_a_probe_on_cached_features_is_the_online_probe():
    """Frozen blocks drop nothing: with dropout in the trunk, the features of a row are always the same.

    Features are computed in blocks of a batch's shape, so on this machine the two agree bit for bit or nearly so.
    """
    t = trial(regime="random_probe", model__options={"hidden": (6, 5), "dropout": 0.4})
    (stage,), data, (initial,) = stages(t), data_of(t), initial_of(trial())
    assert stage.program.cached
    (offline,) = run_phase([t], [stage], data, [initial])
    program = dataclasses.replace(stage.program, cached=False)
    (online,) = run_phase([t], [dataclasses.replace(stage, program=program)], data, [initial])
    assert gap(online.weights, offline.weights) < 1e-6
    assert gap(online.weights.params["heads"]["goal"], initial.params["heads"]["goal"]) > 0.05
    np.testing.assert_allclose(online.train_loss["goal"], offline.train_loss["goal"], atol=1e-6)
    assert same(offline.weights.params["backbone"], initial.params["backbone"])


def test_cached_features_are_those_of_each_row_whatever_is_in_the_pack():
    trials = [trial(regime="random_probe", seed=s, data__target_size=n) for s, n in ((0, 40), (1, 60), (2, 20))]
    data, initial = data_of(*trials), initial_of(*trials)
    found = run_phase(trials, [stages(t)[0] for t in trials], data, initial)
    for i, t in enumerate(trials):
        (alone,) = run_phase([t], [stages(t)[0]], data_of(t), [initial[i]])
        assert same(alone.weights, found[i].weights)


def test_features_are_cached_only_where_nothing_below_the_heads_moves_and_it_pays():
    def cached(**changes):
        return [s.program.cached for s in stages(trial(**changes))]

    assert cached(regime="linear_probe") == [False, True]
    assert cached(regime="lp_ft") == [False, True, False]
    assert cached(regime="linear_probe", trunk_mode="train") == [False, False]
    # Two steps of eight rows draw fewer than the 32 rows there are.
    assert cached(regime="linear_probe", target__total_steps=2) == [False, False]
    assert cached(regime="linear_probe", target__total_steps=4) == [False, True]


def test_dropout_is_on_where_a_block_trains():
    t = trial(regime="random_probe", model__options={"hidden": (6, 5), "dropout": 0.4})
    (stage,), (initial,) = stages(t), initial_of(trial())
    moving, frozen = phase.start(stage.program, hypers_of(stage), initial)
    batch = _batch(table().x[:8])

    @functools.partial(jax.jit, static_argnums=0)
    def loss(train, rng):
        return loss_on(stage.program, train, hypers_of(stage), moving.trainable, frozen, {}, batch, rng)[0]

    one, two, last = jax.random.key(1), jax.random.key(2), frozenset({"dense_1"})
    assert float(loss(False, one)) == float(loss(False, two))
    assert float(loss(last, one)) != float(loss(last, two))


def _batch(x):
    return Batch(jnp.asarray(x), {"goal": (jnp.arange(len(x)) % 2 * 1.0)[:, None]}, jnp.ones((len(x), 1), bool))


def _one_step(program, weights, batch):
    """Return (weights, train) after one compiled step of a phase, without the loop and the pack around it."""
    hypers = dataclasses.replace(hypers_of(stages(trial(regime="random_probe"))[0]), lr=jnp.float32(0.1))
    moving, frozen = phase.start(program, hypers, weights)
    update = jax.jit(functools.partial(update_on, program))
    new = update(hypers, jnp.int32(0), moving, frozen, batch)
    return Weights(phase.whole(program, new.trainable, frozen), new.state), program.train


@functools.cache
def _cnn_weights(norm):
    model = build("cnn", {"channels": (2, 3), "features": 4, "norm": norm}, (Task("goal", "binary"),), "lecun_normal")
    rng = np.random.default_rng(0)  # Statistics among them, which must be positive; drawing is faster than compiling.
    return model, jax.tree.map(lambda a: rng.uniform(0.1, 1.0, a.shape).astype(a.dtype), shapes(model, (4, 4, 1)))


def _cnn(norm, trainable, **fields):
    model, weights = _cnn_weights(norm)
    every = sorted(paths.flatten(weights.params))
    chosen = tuple(p for p in every if p.startswith(trainable))
    common = {
        "tasks": ("goal",),
        "optimizer": optimizer({"name": "adam", "clip": 1.0})[0],
        "batch": 8,
        "sampling": "per_task",
        "solver": Descent(),
    }
    blocks = anatomy(model, (4, 4, 1)).blocks
    rest = {"temperature": 1.0, "denominator": "examples", "trunk_mode": "eval", "select": "last", "judges": ("goal",)}
    program = Program(model=model, blocks=blocks, trainable=chosen, **{**common, **rest, **fields})
    x = np.random.default_rng(0).normal(1.0, 2.0, size=(8, 4, 4, 1)).astype(np.float32)
    after, train = _one_step(program, weights, _batch(x))
    return weights, after, train


def _statistics(weights):
    return weights.state["batch_stats"]


def test_batch_statistics_of_frozen_blocks_do_not_move():
    before, after, train = _cnn("batch", ("heads/",))
    assert train is False
    assert same(before.state, after.state)
    assert same(before.params["backbone"], after.params["backbone"])
    before, after, train = _cnn("batch", ("heads/", "backbone/dense/", "backbone/block_1/"))
    assert train == {"block_1", "dense"}
    assert same(_statistics(before)["block_0"], _statistics(after)["block_0"])
    for name, leaf in _statistics(after)["block_1"]["norm"].items():
        assert (leaf != _statistics(before)["block_1"]["norm"][name]).all()


def test_trunk_mode_train_moves_the_statistics_and_not_the_parameters():
    before, after, train = _cnn("batch", ("heads/",), trunk_mode="train")
    assert train is True
    assert same(before.params["backbone"], after.params["backbone"])
    for block in ("block_0", "block_1"):
        assert not same(_statistics(before)[block], _statistics(after)[block])


def test_group_norm_has_no_statistics_and_freezes_whole():
    before, after, _ = _cnn("group", ("heads/",))
    assert before.state == after.state == {}
    assert same(before.params["backbone"], after.params["backbone"])
    assert not same(before.params["heads"], after.params["heads"])


def test_a_probe_costs_the_forward_pass_and_its_head_only():
    """XLA's count of the compiled step, against a forward pass and a head's gradient written out by hand."""
    model = build("mlp", {"hidden": (256,) * 4}, (Task("goal", "binary"),))
    weights = jax.tree.map(lambda a: jnp.zeros(a.shape), shapes(model, (64,)))
    batch = _batch(np.ones((64, 64), np.float32))
    lane = hypers_of(stages(trial(regime="random_probe"))[0])

    def flops(fn, *args):
        return jax.jit(fn).lower(*args).compile().cost_analysis()["flops"]

    def step_flops(trainable):
        program = dataclasses.replace(
            stages(trial(regime="random_probe"))[0].program, model=model, trainable=trainable,
            blocks=anatomy(model, (64,)).blocks,
            optimizer=optimizer({"name": "adam"})[0],
        )  # fmt: skip
        moving, frozen = phase.start(program, lane, weights)
        return flops(
            functools.partial(update_on, program),
            lane, jnp.int32(0), moving, frozen, batch,
        )  # fmt: skip

    def by_hand(params, x, y):
        for i in range(4):
            p = params["backbone"][f"dense_{i}"]
            x = jnp.maximum(x @ p["kernel"] + p["bias"][None], 0)
        z = x @ params["heads"]["goal"]["kernel"] + params["heads"]["goal"]["bias"][None]
        d = (jax.nn.sigmoid(z[:, 0]) - y) / len(y)
        return z, x.T @ d, d.sum()

    everything = tuple(sorted(paths.flatten(weights.params)))
    least = flops(by_hand, weights.params, batch.x, batch.labels["goal"][:, 0])
    probe = step_flops(tuple(p for p in everything if p.startswith("heads/")))
    assert 0.99 * least <= probe <= 1.01 * least
    assert step_flops(everything) > 2.5 * probe


# A task without a label in the batch.


def test_a_task_that_a_batch_does_not_show_rests_while_the_trunk_moves():
    """Steps of ``rows`` sampling, one at a time: ``rare`` has one label in five, the batch holds two rows."""
    t = trial(regime="source", batch_size=2, source__total_steps=10)
    (stage,), data, (initial,) = stages(t), data_of(t), initial_of(trial())
    assert stage.program.sampling == "rows"
    seen = batches(stage, data).mask["rare"].any(axis=1)
    advance = jax.jit(functools.partial(phase.advance, stage.program, hypers_of(stage)))
    moving, frozen = phase.start(stage.program, hypers_of(stage), initial)
    absent = 0
    for k in range(stage.steps):
        shown = bool(seen[k])
        absent += not shown
        new = advance(moving, Frozen(frozen), data, jnp.int32(k), jnp.int32(k + 1))
        for part in (
            lambda m: m.trainable["heads"]["0"],
            lambda m: m.opt_state["0"],
        ):  # The columns: 3 of kind, 1 of rare.
            for mine, rests in ((slice(3, 4), not shown), (slice(3), False)):
                was, now = (jax.tree.map(lambda a, m=mine: _columns(a)[..., m], part(m)) for m in (moving, new))
                assert same(was, now) is rests
        for part in (lambda m: m.trainable["backbone"], lambda m: m.opt_state["backbone"]):
            assert not same(part(new), part(moving))
        moving = new
    assert 2 <= absent <= 8, "the case must be one in which the task is absent at times"


def _columns(leaf):
    """Return a leaf of a stack with its columns last: [features, columns, 1], [columns, 1], or a count a column."""
    return leaf if leaf.ndim == 1 else leaf[..., 0]


def test_a_task_without_labels_has_no_loss_and_no_gradient():
    t = trial(regime="source")
    (stage,), (initial,) = stages(t), initial_of(trial())
    moving, frozen = phase.start(stage.program, hypers_of(stage), initial)
    x = jnp.asarray(table().x[:4])
    masks = {"kind": jnp.ones(4, bool), "rare": jnp.zeros(4, bool)}

    @jax.jit
    def both(trainable, rare):
        batch = batch_of(stage.program, x, {"kind": jnp.arange(4) % 3, "rare": rare}, masks)
        run = lambda p: loss_on(stage.program, True, hypers_of(stage), p, frozen, {}, batch, jax.random.key(0))  # noqa: E731
        return jax.value_and_grad(run, has_aux=True)(trainable)

    (value, _), grads = both(moving.trainable, jnp.full(4, jnp.nan))
    (other, _), others = both(moving.trainable, jnp.ones(4))
    assert np.isfinite(value)
    assert float(value) == float(other)
    assert same(grads, others)
    for leaf in jax.tree.leaves(grads["heads"]):
        assert not np.any(_columns(leaf)[..., 3:])
        assert np.all(np.any(_columns(leaf)[..., :3].reshape(-1, 3), axis=0))
