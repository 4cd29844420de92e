import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl import params as paths
from mtl.config import ConfigError
from mtl.models import build
from mtl.regimes import Phase, Regime, register
from mtl.tasks import Task
from mtl.train import loop, optimizer, pack, phase, step
from mtl.train.phase import Weights
from mtl.train.program import Lane, Optimizer
from mtl.train.sampling import Batch, below, make_sampler
from mtl.train.trial import make_lane, run, stages_of
from tests.train.build import data_of, run_all, same, trial


def lane_of(stage, seed=0):
    return jax.tree.map(lambda a: jnp.asarray(a[0]), make_lane([seed], [stage], [0]))


def test_frozen_leaves_keep_their_bits_under_decay_and_clipping():
    t = trial(regime="linear_probe", optimizer__weight_decay=0.1, optimizer__clip=0.5, lr=0.1)
    _, stages, _, (source, probe) = run_all(t)
    assert same(source.weights.params["backbone"], probe.weights.params["backbone"])
    assert same(source.weights.params["heads"]["identity"], probe.weights.params["heads"]["identity"])
    assert not same(source.weights.params["heads"]["even"], probe.weights.params["heads"]["even"])
    moving, _ = phase.start(stages[1].program, source.weights)
    head = paths.count(source.weights.params["heads"]["even"])
    sizes = [np.size(x) for x in jax.tree.leaves(moving.slots)]
    assert sum(sizes) == 2 * head + 1  # Adam's two moments of the head, and its count: nothing of the trunk.


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_update_equals_optax_on_the_trainable_subtree(name):
    spec = Optimizer(name, momentum=0.9, nesterov=name == "sgd", clip=0.3)
    rng = np.random.default_rng(0)
    draw = lambda *s: jnp.asarray(rng.normal(size=s), jnp.float32)  # noqa: E731
    p = {"backbone": {"a": {"kernel": draw(3, 4)}}, "heads": {"x": {"bias": draw(2)}}}
    lane = Lane(*(jnp.float32(v) for v in (0, 0.05, 0.1)), jnp.ones(1), jnp.int32(9), jnp.zeros(1, jnp.int32), 0)
    inner = (
        optax.adamw(0.05, weight_decay=0.1)
        if name == "adam"
        else optax.chain(optax.trace(0.9, nesterov=True), optax.add_decayed_weights(0.1), optax.scale(-0.05))
    )
    oracle = optax.chain(optax.clip_by_global_norm(0.3), inner)
    ours, theirs, slots, state = p, p, optimizer.init(spec, p), oracle.init(p)
    for k in range(8):
        grads = jax.tree.map(lambda x: draw(*x.shape), p)
        ours, slots = optimizer.update(spec, lane, jnp.int32(k), grads, slots, ours, {})
        updates, state = oracle.update(grads, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_schedules_equal_optax():
    spec = Optimizer(schedule="cosine", warmup=0.2)
    lane = Lane(0, jnp.float32(0.1), 0, 0, jnp.int32(50), 0, 0)
    cosine = optax.schedules.cosine_decay_schedule(0.1, 40)
    for k in (10, 25, 49):
        np.testing.assert_allclose(optimizer.rate(spec, lane, jnp.int32(k)), cosine(k - 10), rtol=1e-5)
    np.testing.assert_allclose(optimizer.rate(spec, lane, jnp.int32(4)), 0.1 * 5 / 10, rtol=1e-6)
    assert float(optimizer.rate(Optimizer(), lane, jnp.int32(4))) == pytest.approx(0.1)


def test_a_probe_costs_forward_and_head_only():
    tasks = (Task("y", "binary"),)
    model = build("mlp", {"hidden": (256, 256, 256, 256)}, tasks)
    t = trial(regime="linear_probe")
    base = stages_of(t, (64,))[1].program
    import dataclasses

    def flops(trainable):
        program = dataclasses.replace(base, model=model, tasks=("y",), trainable=trainable, target="y")
        params, state = model.init(jax.random.key(0), jnp.zeros((1, 64)))
        moving, frozen = phase.start(program, Weights(params, state))
        batch = Batch(jnp.ones((64, 64)), {"y": jnp.ones(64)}, {"y": jnp.ones(64, bool)})
        lane = Lane(jnp.uint32(0), jnp.float32(1), jnp.float32(0), jnp.ones(1), jnp.int32(9), jnp.zeros(1, int), 0)
        modes = (False,) * 4

        def one(lane, trainable, frozen, state, slots, batch):
            return step.update(program, modes, lane, jnp.int32(0), trainable, frozen, state, slots, batch)

        args = (lane, moving.trainable, frozen, moving.state, moving.slots, batch)
        return jax.jit(one).lower(*args).compile().cost_analysis()["flops"]

    params, state = model.init(jax.random.key(0), jnp.zeros((1, 64)))
    forward = jax.jit(lambda p, x: model.apply(p, state, x)[0]).lower(params, jnp.ones((64, 64))).compile()
    head_gradient = 2 * 64 * 256
    everything = tuple(sorted(paths.flatten(params)))
    probe = flops(tuple(p for p in everything if p.startswith("heads/")))
    assert probe <= 1.01 * (forward.cost_analysis()["flops"] + head_gradient)
    assert flops(everything) > 2.5 * probe


def test_batch_statistics_of_frozen_blocks_do_not_move():
    options = {"channels": (4, 4), "features": 8, "norm": "batch"}
    common = {"model__name": "cnn", "model__options": options, "data__options": {"images": True}}
    t = trial(regime="gradual", **common, target__total_steps=8, evaluations=1)
    _, _, _, outcomes = run_all(t)
    source, head = outcomes[0].weights.state, outcomes[1].weights.state
    assert same(source, head)  # the head alone
    last2 = outcomes[3].weights.state["batch_stats"]  # blocks dense and block_1 train, block_0 is frozen
    assert same(last2["block_0"], source["batch_stats"]["block_0"])
    assert not same(last2["block_1"], source["batch_stats"]["block_1"])
    t = trial(regime="linear_probe", trunk_mode="train", **common, evaluations=1)
    _, _, _, (source, probe) = run_all(t)
    assert not same(source.weights.state, probe.weights.state)
    assert same(source.weights.params["backbone"], probe.weights.params["backbone"])


def test_chunking_changes_no_bit():
    t = trial(regime="finetune")
    whole, cut = run_all(t)[3], run_all(t, chunk_seconds=0.0)[3]
    for a, b in zip(whole, cut, strict=True):
        assert same(a.weights.params, b.weights.params)
        assert (a.train_loss, a.val_loss) == (b.train_loss, b.val_loss)


def test_the_pure_trial_is_what_the_host_loop_runs():
    t = trial(regime="lp_ft")
    initial, stages, data, outcomes = run_all(t)
    lanes = [lane_of(s) for s in stages]
    pure = jax.jit(lambda w: run(stages, lanes, w, data, t.config["evaluations"]))
    weights, curves = pure(initial)
    for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(outcomes[-1].weights), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(curves[-1][:, 0], outcomes[-1].val_loss["even"], rtol=1e-4)


def test_a_packed_trial_has_the_bits_of_the_trial_alone_whatever_its_neighbours():
    alone = run_all(trial(regime="scratch", lr=0.01))[3][0]
    rates = [0.01, 1e38, 0.003, 0.01, 0.02]
    trials = [trial(regime="scratch", lr=r, seed=s) for r, s in zip(rates, (0, 1, 2, 3, 4), strict=True)]
    stages = [stages_of(t, (64,))[0] for t in trials]
    _, data = data_of(trials, [stages[0].program])
    begin = loop.initial_weights(trials[0].model(), (64,), [0, 1, 2, 3, 4], "map")
    packed = loop.run_phase([0, 1, 2, 3, 4], stages, [0, 1, 2, 3, 4], begin, data, evaluations=3, executor="map")
    assert same(alone.weights.params, packed[0].weights.params)
    assert alone.val_loss == packed[0].val_loss
    assert packed[1].diverged_at >= 0
    assert [p.diverged_at for i, p in enumerate(packed) if i != 1] == [-1] * 4


def test_vmap_agrees_with_map_after_one_step():
    t = trial(regime="scratch", target__total_steps=1, evaluations=1)
    a, b = run_all(t)[3][0], run_all(t, executor="vmap")[3][0]
    for x, y in zip(jax.tree.leaves(a.weights), jax.tree.leaves(b.weights), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_the_same_program_compiles_once():
    t = trial(regime="scratch", seed=11)
    run_all(t)
    fn = pack.advance_fn(stages_of(t, (64,))[0].program, "map")
    before = fn._cache_size()
    run_all(trial(regime="scratch", seed=12, lr=0.5, target__total_steps=7))
    assert fn._cache_size() == before


def test_batches():
    t = trial(regime="multitask", data__target_size=50)
    stage = stages_of(t, (64,))[0]
    table, data = data_of([t], [stage.program])
    own, lane = data.of(jnp.int32(0)), lane_of(stage)
    sample = make_sampler(stage.program, lane, own)
    batch = sample(jnp.int32(3))
    assert {k: int(v.sum()) for k, v in batch.mask.items()} == {"identity": 32, "even": 32}
    assert not np.any(np.asarray(batch.mask["identity"]) & np.asarray(batch.mask["even"]))
    # The target's sequence is the same whatever is trained besides.
    alone = stages_of(trial(regime="scratch", data__target_size=50), (64,))[0]
    _, data2 = data_of([trial(regime="scratch", data__target_size=50)], [alone.program])
    other = make_sampler(alone.program, lane_of(alone), data2.of(jnp.int32(0)))(jnp.int32(3))
    np.testing.assert_array_equal(batch.x[32:], other.x)
    # Only rows with a present training label are drawn.
    allowed = {r.tobytes() for r in np.asarray(table.x)[np.asarray(own.train["even"])]}
    assert all(r.tobytes() in allowed for r in np.asarray(other.x))


def test_lp_ft_continues_the_sequence_of_target_batches():
    stages = stages_of(trial(regime="lp_ft", target__total_steps=10), (64,))
    assert [s.offset for s in stages] == [(0,), (0,), (5,)]


@pytest.mark.parametrize("count", [1, 3, 1000, 65535, 65537, 2**31 - 1])
def test_below_is_exact(count):
    key = jax.random.key(count)
    bits = np.asarray(jax.random.bits(key, (500,), jnp.uint32)).astype(object)
    np.testing.assert_array_equal(np.asarray(below(key, 500, count)).astype(object), (bits * count) // 2**32)


def test_a_head_without_labels_in_the_batch_rests():
    t = trial(regime="multitask", joint_sampling="proportional", optimizer__weight_decay=0.1)
    stage = stages_of(t, (64,))[0]
    params, state = t.model().init(jax.random.key(0), jnp.zeros((1, 64)))
    moving, frozen = phase.start(stage.program, Weights(params, state))
    labels = {"identity": jnp.zeros(4, jnp.int32), "even": jnp.full(4, jnp.nan)}
    masks = {"identity": jnp.ones(4, bool), "even": jnp.zeros(4, bool)}
    batch = Batch(jnp.ones((4, 64)), labels, masks)
    new, _, slots, value = step.update(
        stage.program, (True, True), lane_of(stage), jnp.int32(0), moving.trainable, frozen, state, moving.slots, batch
    )
    assert np.isfinite(float(value))
    assert same(new["heads"]["even"], params["heads"]["even"])
    assert same(slots["heads/even"], moving.slots["heads/even"])
    assert not same(new["heads"]["identity"], params["heads"]["identity"])


def test_select_best_keeps_the_best_evaluation():
    for seed in range(8):
        t = trial(
            regime="scratch",
            select="best",
            lr=0.05,
            seed=seed,
            target__total_steps=60,
            data__target_size=10,
            evaluations=6,
        )
        outcome = run_all(t)[3][0]
        at = outcome.steps[int(np.argmin(outcome.val_loss["even"]))]
        if at < 60:
            break
    assert at < 60, "the case must be one where the last state is not the best"
    import dataclasses

    from mtl.train.trial import freshen

    initial, stages, data, _ = run_all(t)
    program = dataclasses.replace(stages[0].program, select="last")
    short = dataclasses.replace(stages[0], program=program, steps=at)
    (last,) = loop.run_phase(
        [t.seed], [short], [0], [freshen(initial, initial, ())], data, evaluations=1, executor="map"
    )
    assert same(last.weights.params, outcome.weights.params)


def test_gradient_against_finite_differences():
    with jax.enable_x64(True):
        t = trial(regime="multitask", model__options={"hidden": (3,)}, model__head_init="lecun_normal")
        stage = stages_of(t, (64,))[0]
        params, state = t.model().init(jax.random.key(1), jnp.zeros((1, 64)))
        params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
        moving, frozen = phase.start(stage.program, Weights(params, state))
        x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 64)))
        batch = Batch(
            x,
            {"identity": jnp.asarray([1, 2, -1, 3, 0]), "even": jnp.asarray([1.0, jnp.nan, 0.0, 1.0, jnp.nan])},
            {"identity": jnp.asarray([1, 1, 0, 1, 1], bool), "even": jnp.asarray([1, 0, 1, 1, 0], bool)},
        )
        lane = lane_of(stage)

        def f(p):
            return step.loss(stage.program, (True,), lane, p, frozen, state, batch, jax.random.key(0))[0]

        from jax.test_util import check_grads

        check_grads(f, (moving.trainable,), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)


def test_a_zero_head_predicts_uniformly_and_leaves_the_trunk_alone_at_first():
    model = trial().model()
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 64)))
    x = jnp.ones((3, 64))
    assert float(jnp.abs(model.apply(params, state, x)[0]["identity"]).max()) == 0
    grads = jax.grad(lambda p: model.apply(p, state, x)[0]["even"].sum())(params)
    assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(grads["backbone"]))
    other = build("mlp", {"hidden": (8, 6)}, (Task("else", "binary"),))
    assert same(other.init(jax.random.key(0), x)[0]["backbone"], params["backbone"])


def test_a_pattern_that_matches_nothing_is_refused_before_compiling():
    register("dead_pattern", Regime((Phase(trainable="backbone/dens_0/.*"),), "a typo"))
    with pytest.raises(ConfigError, match='pattern "backbone/dens_0/\\.\\*" matches no parameter'):
        stages_of(trial(regime="dead_pattern"), (64,))


def test_standardisation_reads_training_rows_only():
    from mtl.data import Split, make_table
    from mtl.train.dataset import statistics

    x = np.random.default_rng(0).normal(2.0, 3.0, size=(20, 4)).astype(np.float32)
    label = np.arange(20) % 2 * np.float32(1)
    mask = np.arange(20) < 12
    split = Split({"a": label}, {"a": mask}, {"a": ~mask}, {"a": ~mask})
    task = Task("a", "binary")
    shift, scale = statistics(make_table("t", x, (task,), {"a": label}), split)
    np.testing.assert_allclose(shift, x[:12].mean(0), rtol=1e-5)
    np.testing.assert_allclose(scale, 1 / x[:12].std(0), rtol=1e-5)
    y = x.copy()
    y[12:] = 1e6
    assert same(statistics(make_table("t", y, (task,), {"a": label}), split), (shift, scale))
