"""Balancers: what they are shown against gradients taken one by one, and methods written as a user would write them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from mtl import balance
from mtl.balance import BALANCERS, Balancer, options_of, register
from mtl.cli import main
from mtl.config import ConfigError
from mtl.models import anatomy, build
from mtl.params import flatten
from mtl.sweep.labelled import check_batches
from mtl.sweep.store import Workdir
from mtl.tasks import Task
from mtl.train import loop, phase, pull, step
from mtl.train.descent import further
from mtl.train.placement import Placement
from mtl.train.program import Frozen, Indices
from mtl.train.sampling import Batch, make_gather, make_sampler
from mtl.train.stacks import ordered
from mtl.train.trial import stages_of
from tests.train.build import by_task, data_of, gap, hypers_of, initial_of, run_phase, same, stages, trial, with_steps

SHOWN = []


@pytest.fixture(autouse=True)
def _mine():
    known = dict(BALANCERS)
    yield
    BALANCERS.clear()
    BALANCERS.update(known)


def balancer(*needs, batches=0, weights=None):
    """Register a balancer that hands out fixed weights, and keeps what it is shown; return its name."""

    @register("shown")
    def make():
        def update(state, seen):
            kept = {n: getattr(seen, n) for n in ("losses", "features", "gramian", "jacobian", "others", "validation")}
            kept = {n: v for n, v in kept.items() if v is not None} | {"active": seen.active}
            jax.debug.callback(lambda k: SHOWN.append(jax.tree.map(np.asarray, k)), kept)
            return jnp.ones(len(seen.active)) if weights is None else jnp.asarray(weights), state

        return Balancer(lambda tasks: (), update, needs, batches)

    SHOWN.clear()
    return "shown"


def multitask(**changes):
    return trial(regime="multitask", **{"optimizer__clip": 0.0, "optimizer__weight_decay": 0.0} | changes)


def one_step(t, data=None):
    """Return (what moves before and after one step of a trial's phase, the stage, its batch, what was shown)."""
    (stage,), data, (initial,) = stages(t), data_of(t) if data is None else data, initial_of(t)
    program, hypers = stage.program, hypers_of(stage)
    moving, frozen = phase.start(program, hypers, initial)
    new = jax.jit(lambda m, d: phase.advance(program, hypers, m, Frozen(frozen), d, jnp.int32(3), jnp.int32(4)))(
        moving, data
    )
    jax.block_until_ready(new)
    jax.effects_barrier()
    return moving, new, stage, data, initial


def rows_by_hand(stage, data, initial, draw=None):
    """Return (losses, each task's gradient at the trunk, at the features), by a loss written out for each alone."""
    program, hypers = stage.program, hypers_of(stage)
    own = data.of(hypers.split)
    if draw is None:
        draw = make_sampler(program, hypers, own)(jnp.int32(3))
    batch = make_gather(program, own, Frozen({}))(draw)
    _, c = step.weigh(program, hypers, batch.mask)
    batch = by_task(program, batch)
    losses, rows, at_features = [], [], []
    for i, task in enumerate(ordered(program)):
        mask, y = batch.mask[task.name], batch.labels[task.name]

        def total(features, mask=mask, y=y, task=task):
            head = initial.params["heads"][task.name]
            z = features @ head["kernel"] + head["bias"][None]
            if task.kind == "multiclass":
                each = -jax.nn.log_softmax(z)[jnp.arange(len(y)), jnp.maximum(y, 0)]
            else:
                each = jnp.logaddexp(z[:, 0], 0) - z[:, 0] * jnp.where(mask, y, 0)
            return jnp.sum(jnp.where(mask, each, 0.0))

        def features(backbone):
            x = batch.x
            for name in ("dense_0", "dense_1"):
                x = jax.nn.relu(x @ backbone[name]["kernel"] + backbone[name]["bias"][None])
            return x

        backbone = initial.params["backbone"]
        losses.append(total(features(backbone)) / jnp.maximum(mask.sum(), 1))
        rows.append(c[i] * ravel_pytree(jax.grad(lambda b, t=total, f=features: t(f(b)))(backbone))[0])
        at_features.append(c[i] * jax.grad(total)(features(backbone)).ravel())
    return np.asarray(losses), np.stack(rows), np.stack(at_features)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["per_task", "rows"])
@pytest.mark.parametrize("parts", [1, 2])
def test_what_is_shown_is_each_tasks_own(sampling, parts):
    """Rows that a task owns take one pass, shared rows a pass back for each: both are the gradients taken alone."""
    name = balancer("losses", "features", "gramian", "jacobian")
    moving, new, *about = one_step(multitask(balancer__name=name, joint_sampling=sampling, accumulate=parts))
    losses, rows, at_features = rows_by_hand(*about)
    (shown,) = SHOWN
    scale = np.abs(rows).max()
    np.testing.assert_allclose(shown["losses"], losses, rtol=1e-5)
    np.testing.assert_allclose(shown["jacobian"], rows, atol=1e-6 * scale)
    np.testing.assert_allclose(shown["gramian"], rows @ rows.T, rtol=1e-4, atol=1e-6 * scale**2)
    np.testing.assert_allclose(shown["features"], at_features @ at_features.T, rtol=1e-4, atol=1e-9)
    assert not same(moving.trainable, new.trainable)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["per_task", "rows"])
@pytest.mark.parametrize("needs", [(), ("losses",), ("gramian",)])
def test_equal_weights_through_a_balancer_are_the_sum(needs, sampling):
    plain = one_step(multitask(joint_sampling=sampling))[1]
    found = one_step(multitask(joint_sampling=sampling, balancer__name=balancer(*needs)))[1]
    assert gap(found.trainable, plain.trainable) < 1e-6
    assert gap(found.loss_sum, plain.loss_sum) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("needs", [(), ("gramian",)])
def test_weights_are_the_trunks_and_each_head_has_its_own_gradient(needs):
    weights = (0.0, 2.0, -0.5)
    t = multitask(balancer__name=balancer(*needs, weights=weights), optimizer__name="sgd", lr=0.5)
    moving, new, *about = one_step(t)
    _, rows, _ = rows_by_hand(*about)
    moved = ravel_pytree(moving.trainable["backbone"])[0] - ravel_pytree(new.trainable["backbone"])[0]
    np.testing.assert_allclose(moved, 0.5 * np.asarray(weights) @ rows, atol=1e-6)
    plain = one_step(multitask(optimizer__name="sgd", lr=0.5))[1]
    assert gap(new.trainable["heads"], plain.trainable["heads"]) < 1e-6


@pytest.mark.slow
def test_a_task_without_labels_has_a_row_of_zeros():
    t = multitask(balancer__name=balancer("gramian", "losses"), joint_sampling="rows", batch_size=2)
    *_, stage, data, initial = one_step(t)
    _, rows, _ = rows_by_hand(stage, data, initial)
    (shown,) = SHOWN
    assert 0 < shown["active"].sum() < 3, "the case must be one in which a task is absent"
    np.testing.assert_array_equal(shown["active"], np.abs(rows).sum(axis=1) > 0)
    np.testing.assert_array_equal(shown["losses"] > 0, shown["active"])
    np.testing.assert_array_equal(np.diag(shown["gramian"]) > 0, shown["active"])


@pytest.mark.slow
def test_further_batches_are_independent_and_validation_is_on_validation_labels():
    name = balancer("jacobian", "validation", batches=2)
    *_, stage, data, initial = one_step(multitask(balancer__name=name, joint_sampling="rows"))
    (shown,) = SHOWN
    all_of = [shown["jacobian"], *shown["others"], shown["validation"]]
    assert all(gap(a, b) > 1e-4 for i, a in enumerate(all_of) for b in all_of[:i])
    hypers, program = hypers_of(stage), stage.program
    own = data.of(hypers.split)
    others, validation = further(program, hypers, own, Frozen({}))
    for draw, found in ((o(jnp.int32(3)).draw, j) for o, j in zip(others, shown["others"], strict=True)):
        np.testing.assert_allclose(rows_by_hand(stage, data, initial, draw)[1], found, atol=1e-6)
    source = validation(jnp.int32(3))
    held_out = own.val[:, own.columns([t.name for t in ordered(program)])]
    assert bool((source.draw.mask <= held_out[source.draw.rows]).all()) and int(source.draw.mask.sum()) > 0
    held_out = dataclasses.replace(stage, program=source.program)
    np.testing.assert_allclose(rows_by_hand(held_out, data, initial, source.draw)[1], shown["validation"], atol=1e-6)


# --- methods ---

PCGRAD = '''
import jax, jax.numpy as jnp
from mtl.balance import Balancer, register
from mtl.config import default

@register("pcgrad")
def pcgrad():
    """Yu et al. 2020 (arXiv:2001.06782), by weights of the rows."""
    def update(state, seen):
        g, order = seen.gramian, jax.random.permutation(seen.key, len(seen.active))
        def project(i):
            def away_from(w, j):
                dot = w @ g[:, j]
                shrink = jnp.where((dot < 0) & (j != i), dot / jnp.maximum(g[j, j], 1e-30), 0.0)
                return w.at[j].add(-shrink), None
            return jax.lax.scan(away_from, jnp.eye(len(g))[i], order)[0]
        return jax.vmap(project)(jnp.arange(len(g))).sum(axis=0), state
    return Balancer(lambda tasks: (), update, needs=("gramian",))
'''
CONFIG = """
def get_config():
    c = default()
    c.name, c.regime, c.balancer.name = "balanced", "multitask", "pcgrad"
    c.source.total_steps = c.target.total_steps = 6
    c.data.source = ("prime", "has_loop")
    return c
"""


def load_pcgrad():
    exec(PCGRAD, {"__name__": __name__})  # noqa: S102 — as a config is
    return BALANCERS["pcgrad"]()


@pytest.mark.parametrize("rows", [3, 4, 7])
def test_pcgrad_is_its_loop(rows):
    rng, key = np.random.default_rng(rows), jax.random.key(rows)
    j = rng.normal(size=(rows, 2))  # In a plane, most of them conflict.
    order = np.asarray(jax.random.permutation(key, rows))
    expected = np.zeros(2)
    for i in range(rows):
        p = j[i].copy()
        for k in order:
            if k != i and p @ j[k] < 0:
                p -= p @ j[k] / (j[k] @ j[k]) * j[k]
        expected += p
    seen = balance.Seen(jnp.ones(rows, bool), key, gramian=jnp.asarray(j @ j.T, jnp.float32))
    update = load_pcgrad().update
    weights, _ = jax.jit(lambda: update((), seen))()
    np.testing.assert_allclose(weights @ j, expected, atol=1e-5)
    assert np.abs(weights - 1).max() > 0.1


@pytest.mark.slow
def test_pcgrad_in_a_config_file_trains_from_the_command_line(tmp_path):
    assert len(PCGRAD.strip().splitlines()) <= 25
    (tmp_path / "c.py").write_text(PCGRAD + CONFIG)
    assert main(["run", f"--config={tmp_path / 'c.py'}", f"--workdir={tmp_path / 'w'}", "--quiet"]) == 0
    workdir = Workdir(tmp_path / "w")
    (result,) = (workdir.result(digest) for digest in workdir.hashes())
    assert result["config"]["balancer"] == {"name": "pcgrad", "options": {}}
    assert set(result["phases"][0]["train_loss"]) == {"prime", "has_loop", "even"}


def run_by_hand(t, weigh, state, steps=None):
    """Return the trunk after steps of SGD on Σ_k w_k g_k; ``weigh(state, losses, rows, step) -> (weights, state)``."""
    (stage,), data, (initial,) = stages(t), data_of(t), initial_of(t)
    program, hypers = stage.program, hypers_of(stage)
    own = data.of(hypers.split)
    sample, gather = make_sampler(program, hypers, own), make_gather(program, own, Frozen({}))
    params = {"backbone": initial.params["backbone"], "heads": initial.params["heads"]}
    names = [task.name for task in ordered(program)]

    @jax.jit
    def look(params, k):
        batch = gather(sample(k))
        counts, c = step.weigh(program, hypers, batch.mask)
        batch = by_task(program, batch)

        def sums(params):
            found, _ = program.model.apply(params, {}, batch.x, tasks=tuple(names))
            each = []
            for n in names:
                m, y, z = batch.mask[n], batch.labels[n], found[n]
                if z.shape[1] > 1:
                    loss = -jnp.take_along_axis(jax.nn.log_softmax(z), jnp.maximum(y, 0)[:, None], axis=1)[:, 0]
                else:
                    loss = jnp.logaddexp(z[:, 0], 0) - z[:, 0] * jnp.where(m, y, 0)
                each.append(jnp.sum(jnp.where(m, loss, 0.0)))
            return jnp.stack(each)

        grads = jax.tree.map(lambda a: a * c.reshape(-1, *[1] * (a.ndim - 1)), jax.jacrev(sums)(params))
        return sums(params) / jnp.maximum(counts, 1), grads

    @jax.jit
    def move(params, grads, weights):
        trunk = jax.tree.map(lambda a: jnp.tensordot(weights, a, 1), grads["backbone"])
        heads = jax.tree.map(lambda a: a.sum(axis=0), grads["heads"])
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, {"backbone": trunk, "heads": heads})

    for k in range(steps or stage.steps):
        losses, grads = look(params, jnp.int32(k))
        weights, state = weigh(state, np.asarray(losses), grads["backbone"], k)
        params = move(params, grads, jnp.asarray(weights, jnp.float32))
    return params


def trained(t, **options):
    return run_phase([t], stages(t), data_of(t), initial_of(t), **options)[0]


SGD = {"optimizer__name": "sgd", "lr": 0.1, "source_lr": 0.1}


@pytest.mark.slow
def test_uncertainty_weighting_is_its_definition():
    """s descends on Σ ½ (e^(−s) L + s), by the losses of the step before; differences of ½ are its gradient."""
    t = multitask(balancer__name="uncertainty", balancer__options={"lr": 0.5}, **SGD)

    def weigh(state, losses, rows, k):
        s, before = state
        if before is not None:
            h = 1e-6
            objective = lambda s: 0.5 * np.sum(np.exp(-s) * before + s)  # noqa: E731
            slope = [(objective(s + h * e) - objective(s - h * e)) / (2 * h) for e in np.eye(3)]
            s = s - 0.5 * np.asarray(slope)
        return np.exp(-s), (s, losses)

    expected = run_by_hand(t, weigh, (np.zeros(3), None))
    outcome = trained(t)
    assert gap(outcome.weights.params, expected) < 2e-6
    assert gap(outcome.weights.params["backbone"], trained(multitask(**SGD)).weights.params["backbone"]) > 1e-3


def test_famo_by_the_next_batch_is_a_loop_with_adam():
    """Liu et al. 2023 (arXiv:2306.03792): what a step did is seen in the losses of the next batch."""

    @register("famo")
    def famo(lr: float = 0.025, decay: float = 1e-3):
        adam = optax.adam(lr)

        def update(state, seen):
            w, moments, before = state
            now = jnp.log(seen.losses + 1e-8)
            fall = jnp.where(jnp.isnan(before), 0.0, before - now)
            _, slope = jax.vjp(jax.nn.softmax, w)
            moves, new = adam.update(slope(fall)[0] + decay * w, moments, w)
            known = ~jnp.isnan(before).any()
            w = jnp.where(known, w + moves, w)
            moments = jax.tree.map(lambda a, b: jnp.where(known, a, b), new, moments)
            z = jax.nn.softmax(w)
            weights = z / (seen.losses + 1e-8)
            return weights / weights.sum() * len(w), (w, moments, now)

        return Balancer(
            lambda k: (jnp.zeros(k), adam.init(jnp.zeros(k)), jnp.full(k, jnp.nan)), update, needs=("losses",)
        )

    def weigh(state, losses, rows, k):
        w, m, v, n, before = state
        now = np.log(losses + 1e-8)
        if before is not None:
            z = np.exp(w) / np.exp(w).sum()
            slope = z * (before - now) - z * (z @ (before - now)) + 1e-3 * w
            n += 1
            m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
            w = w - 0.025 * (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.999**n)) + 1e-8)
        z = np.exp(w) / np.exp(w).sum()
        weights = z / (losses + 1e-8)
        return weights / weights.sum() * 3, (w, m, v, n, now)

    t = multitask(balancer__name="famo", **SGD)
    expected = run_by_hand(t, weigh, (np.zeros(3), np.zeros(3), np.zeros(3), 0, None))
    assert gap(trained(t).weights.params, expected) < 1e-5


def sdmgrad(steps: int = 20, lr: float = 5.0, momentum: float = 0.5, lam: float = 0.3):
    """Xiao et al. 2023 (arXiv:2305.18409): w from the product of two independent batches, the step from a third."""

    def project(v):  # Onto the simplex (Duchi et al. 2008).
        u = jnp.sort(v)[::-1]
        level = (jnp.cumsum(u) - 1) / jnp.arange(1, len(v) + 1)
        return jnp.maximum(v - level[jnp.sum(u > level) - 1], 0.0)

    def update(w, seen):
        g = seen.others[0] @ seen.others[1].T
        g = g / jnp.mean(jnp.sqrt(jnp.abs(jnp.diag(g)))) ** 2
        even = jnp.full(len(w), 1 / len(w))

        def descend(_, held):
            w, speed = held
            speed = momentum * speed + g @ w + lam * g @ even
            return project(w - lr * speed), speed

        w, _ = jax.lax.fori_loop(0, steps, descend, (w, jnp.zeros_like(w)))
        return (w + lam * even) / (1 + lam), w

    return Balancer(lambda k: jnp.full(k, 1 / k), update, needs=("jacobian",), batches=2)


@pytest.mark.slow
def test_sdmgrad_by_three_batches():
    register("sdmgrad")(sdmgrad)
    t = multitask(balancer__name="sdmgrad", balancer__options={"steps": 5, "lr": 0.5}, **SGD)
    assert options_of("sdmgrad", {"steps": 5}) == {"steps": 5, "lr": 5.0, "momentum": 0.5, "lam": 0.3}
    (stage,), data = stages(t), data_of(t)
    hypers, program = hypers_of(stage), stage.program
    others, _ = further(program, hypers, data.of(hypers.split), Frozen({}))
    method = sdmgrad(5, 0.5)
    initial = initial_of(t)[0]

    def weigh(state, losses, rows, k):
        flat = [rows_by_hand(stage, data, initial, other(jnp.int32(k)).draw)[1] for other in others]
        return method.update(state, balance.Seen(jnp.ones(3, bool), None, others=jnp.stack(flat)))

    expected = run_by_hand(t, weigh, jnp.full(3, 1 / 3), steps=1)
    short = with_steps(stage, 1)
    (outcome,) = run_phase([t], [short], data, [initial], evaluations=1)
    assert gap(outcome.weights.params, expected) < 1e-6


@pytest.mark.slow
def test_adatask_has_moments_of_each_task_and_resting_ones_rest():
    """Yang et al. 2023: the trunk's update is the sum of what Adam makes of each task's gradient by itself."""
    betas = {"b1": 0.875, "b2": 0.96875}
    t = multitask(optimizer__per_task=True, joint_sampling="rows", batch_size=2, lr=0.02, optimizer__options=betas)
    (stage,), data, (initial,) = stages(t), data_of(t), initial_of(t)
    hypers, program = hypers_of(stage), stage.program
    own = data.of(hypers.split)
    sample = make_sampler(program, hypers, own)
    adam, rests = optax.adam(0.02, **betas), 0
    trunk, restore = ravel_pytree(initial.params["backbone"])
    states = [adam.init(trunk) for _ in range(3)]
    now = initial
    for k in range(6):
        # Heads take the values that our own run has: what is tried is the trunk.
        (outcome,) = run_phase([t], [with_steps(stage, k + 1)], data, [initial], evaluations=1)
        draw = sample(jnp.int32(k))
        rows = rows_by_hand(
            stage, data, dataclasses.replace(now, params={**now.params, "backbone": restore(trunk)}), draw
        )[1]
        total = 0.0
        for i, row in enumerate(rows):
            if not np.abs(row).any():
                rests += 1
                continue
            moved, states[i] = adam.update(jnp.asarray(row), states[i], trunk)
            total = total + moved
        trunk = trunk + total
        assert gap(ravel_pytree(outcome.weights.params["backbone"])[0], trunk) < 2e-6
        now = outcome.weights
    assert rests


# --- promises ---


def test_moments_of_each_task_and_one_direction_do_not_go_together():
    t = multitask(balancer__name=balancer("direction", weights=(1.0,) * 7), optimizer__per_task=True)
    with pytest.raises(ConfigError, match="gives one for all: must be False"):
        stages(t)


def test_an_average_has_no_batch_statistics():
    options = {"model__name": "cnn", "model__options": {"channels": (2,), "norm": "batch"}, "optimizer__ema": 0.9}
    t = trial((6, 6, 1), regime="scratch", **options)
    with pytest.raises(ConfigError, match="evaluates an average of the parameters, and batch statistics are of those"):
        stages_of(t, (6, 6, 1))


@pytest.mark.parametrize("name", ["pcgrad", "uncertainty"])
def test_chunks_and_packs_have_the_bits_of_a_trial_alone(name, monkeypatch):
    load_pcgrad()
    trials = [multitask(balancer__name=name, seed=s) for s in range(2)]
    data, initial = data_of(*trials), initial_of(*trials)
    every = [stages(t)[0] for t in trials]
    whole = run_phase(trials, every, data, initial)
    cut = run_phase(trials, every, data, initial, chunk_seconds=0.0)
    (alone,) = run_phase(trials[1:], every[1:], data, initial[1:], splits=[1])
    assert all(same(a.weights, b.weights) for a, b in zip(whole, cut, strict=True))
    assert same(alone.weights, whole[1].weights)


class Kept(loop.Checkpointer):
    """Stops after some chunks and goes on from there."""

    def __init__(self):
        self.kept, self.boundaries = None, 0

    def restore(self):
        return self.kept

    def boundary(self, take):
        self.boundaries += 1
        if self.kept is None and self.boundaries == 2:
            state = take()
            self.kept = dataclasses.replace(state, moving={k: np.array(a) for k, a in state.moving.items()})
            raise loop.Stopped


@pytest.mark.parametrize("name", ["pcgrad", "uncertainty"])
def test_a_balancer_goes_on_where_it_was_stopped(name):
    load_pcgrad()
    t, guard = multitask(balancer__name=name), Kept()
    with pytest.raises(loop.Stopped):
        trained(t, guard_of=lambda part: guard, chunk_seconds=0.0)
    assert any(path.startswith("balance/losses") for path in guard.kept.moving)
    assert same(trained(t, guard_of=lambda part: guard).weights, trained(t).weights)


@pytest.mark.parametrize("sampling", ["per_task", pytest.param("rows", marks=pytest.mark.slow)])
def test_two_devices_balance_as_one(sampling):
    load_pcgrad()
    t = multitask(balancer__name="pcgrad", joint_sampling=sampling)
    assert gap(trained(t).weights, trained(t, placement=Placement("map", data=2)).weights) < 1e-5


def test_floats_are_data_and_what_cannot_be_balanced_is_not():
    one, two = (stages(multitask(balancer__name="uncertainty", balancer__options={"lr": lr}))[0] for lr in (0.1, 0.2))
    assert (one.program, one.hypers.balancer, two.hypers.balancer) == (two.program, {"lr": 0.1}, {"lr": 0.2})
    source, head = stages(trial(regime="linear_probe", balancer__name="uncertainty"))
    assert source.program.balancer is not None  # Two sources.
    assert head.program.balancer is None
    assert all(flatten(s.hypers.balancer) == {} for s in stages(trial(regime="scratch", balancer__name="uncertainty")))


def test_a_balancer_that_no_phase_has_is_nobodys_business():
    """Trials that it cannot touch have one address with and without it, and so have phases before it begins."""
    for regime in ("scratch", "linear_probe"):
        one = {"regime": regime, "data__source": ("kind",)}
        with_it = trial(**one, balancer__name="uncertainty", optimizer__per_task=True)
        assert with_it.hash == trial(**one).hash
    assert trial(regime="multitask", balancer__name="uncertainty").hash != trial(regime="multitask").hash


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"balancer__name": "uncertain"}, 'config.balancer.name = "uncertain": did you mean "uncertainty"'),
        ({"balancer__name": "equal", "balancer__options": {"lr": 1.0}}, "config.balancer"),
        ({"balancer__name": "uncertainty", "balancer__options": {"rate": 1.0}}, 'has no option "rate"'),
        ({"balancer__name": "uncertainty", "balancer__options": {"lr": "x"}}, "config.balancer.options.lr = 'x'"),
        ({"balancer__name": "wrong"}, 'needs "gram": did you mean "gramian"'),
        ({"balancer__name": "none"}, "must return a mtl.balance.Balancer"),
        ({"balancer__name": "short"}, "gives an array of shape (2,) for 3 tasks: must be [tasks]"),
        ({"balancer__name": "grows"}, "its state changes shape or type in a step: must stay as init gives it"),
        ({"balancer__name": "blind"}, 'balancer "blind": cannot be used: '),
        (
            {"balancer__name": "uncertainty", "balancer__options": {"lr": -1.0}},
            "lr = -1.0: must be a finite number above 0",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(changes, sentence):
    register("wrong")(lambda: Balancer(lambda k: (), lambda s, seen: (seen.active, s), needs=("gram",)))
    register("none")(lambda: None)
    register("short")(lambda: Balancer(lambda k: (), lambda s, seen: (jnp.ones(2), s)))
    register("grows")(lambda: Balancer(jnp.zeros, lambda s, seen: (s, s[None])))
    register("blind")(lambda: Balancer(lambda k: (), lambda s, seen: (seen.gramian[0], s)))
    with pytest.raises(ConfigError) as error:
        multitask(**changes)
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_where_statistics_join_the_rows_each_task_has_its_pass_back(norm):
    """With batch statistics a row's gradient depends on all rows: of a task's own rows alone it would be another."""
    options = {"channels": (2,), "features": 3, "norm": norm}
    model = build("cnn", options, (Task("a", "binary"), Task("b", "binary")), "lecun_normal")
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), jnp.float32), params)
    program = dataclasses.replace(
        stages(multitask())[0].program,
        model=model,
        blocks=anatomy(model, (6, 6, 1)).blocks,
        tasks=("b", "a"),
        trainable=tuple(sorted(flatten(params))),
        batch=3,
    )
    mask = {"b": jnp.arange(6) < 3, "a": jnp.arange(6) >= 3}
    labels = {t: jnp.asarray(rng.integers(0, 2, 6), jnp.float32) for t in mask}
    x = jnp.asarray(rng.normal(size=(6, 6, 6, 1)), jnp.float32)

    def fetch(draw):
        take = lambda a: jnp.take(a, draw.rows, axis=0)  # noqa: E731
        return Batch(take(x), {"a": take(jnp.stack([labels["a"], labels["b"]], axis=1))}, draw.mask)

    trainable, frozen = phase.divide(program, params)
    draw = Indices(jnp.arange(6), jnp.stack([mask["a"], mask["b"]], axis=1))
    whole = pull.Pull(program, jnp.asarray([0.5, 2.0]), Frozen(frozen), draw, fetch, jax.random.key(0))
    rows = whole.jacobian(trainable, state)[0]
    for i, task in enumerate(("a", "b")):

        def loss(backbone, task=task):
            features, _ = model.trunk(backbone, state, x, train=True)
            z = model.head(params["heads"][task], features)[:, 0]
            return jnp.sum(jnp.where(mask[task], jnp.logaddexp(z, 0) - z * labels[task], 0.0))

        alone = jax.grad(loss)(params["backbone"])
        assert (
            gap(jax.tree.map(lambda a, i=i: a[i], rows), jax.tree.map(lambda a, c=(0.5, 2.0)[i]: a * c, alone)) < 1e-5
        )


def test_what_is_streamed_has_no_further_batches():
    name = balancer("gramian", batches=1)
    t = multitask(balancer__name=name)
    with pytest.raises(ConfigError, match=f'config.balancer.name = "{name}": needs batches beside the one of a step'):
        check_batches(t, stages(t))
    t = multitask(balancer__name="uncertainty")
    check_batches(t, stages(t))
