"""The optimizer against optax on the trainable subtree alone, and its schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl.train import optimizer
from mtl.train.program import Lane, Optimizer
from tests.train.build import gap, same


def lane(lr=0.05, weight_decay=0.1, steps=10):
    zero = jnp.zeros((), jnp.int32)
    return Lane(zero, jnp.float32(lr), jnp.float32(weight_decay), jnp.ones(1), jnp.int32(steps), zero[None], zero)


ADAMW = optax.adamw(0.05, b1=0.8, b2=0.99, weight_decay=0.1)
SGD = optax.chain(optax.add_decayed_weights(0.1), optax.scale(-0.05))


@pytest.mark.parametrize(
    ("spec", "inner"),
    [
        (Optimizer("adam", momentum=0.8, b2=0.99, clip=0.7), ADAMW),
        (Optimizer("sgd", momentum=0.9, clip=0.7), optax.chain(optax.trace(0.9), SGD)),
        (Optimizer("sgd", momentum=0.9, nesterov=True), optax.chain(optax.trace(0.9, nesterov=True), SGD)),
        (Optimizer("sgd", momentum=0.0, clip=0.7), SGD),
    ],
)
def test_update_equals_optax_on_the_trainable_subtree(spec, inner):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    # `None` is a frozen leaf. Several groups (backbone, two heads) share one norm.
    params = {
        "backbone": {"a": {"kernel": None, "bias": None}, "b": {"kernel": draw(4, 3), "bias": draw(3)}},
        "heads": {"x": {"kernel": draw(3, 1), "bias": draw(1)}, "y": {"kernel": draw(3, 2), "bias": draw(2)}},
    }
    oracle = optax.chain(optax.clip_by_global_norm(spec.clip or 1e9), inner)
    ours, slots, theirs, state = params, optimizer.init(spec, params), params, oracle.init(params)
    update = jax.jit(lambda k, g, s, p: optimizer.update(spec, lane(), k, g, s, p, {}))
    oracle_update = jax.jit(oracle.update)
    for k in range(10):
        # Gradients on both sides of the bound: clipping must not shrink the small ones.
        grads = jax.tree.map(lambda p, k=k: draw(*p.shape) * (0.01 if k % 3 == 0 else 1.0), params)
        ours, slots = update(k, grads, slots, ours)
        updates, state = oracle_update(grads, state, theirs)
        theirs = jax.tree.map(np.add, theirs, updates)
    assert gap(ours, theirs) < 1e-6
    assert gap(ours, params) > 0.05
    assert ours["backbone"]["a"] == {"kernel": None, "bias": None}


def test_sgd_with_momentum_in_closed_form():
    """A constant gradient g: the velocity after k steps is g (1 − μᵏ)/(1 − μ)."""
    spec, params = Optimizer("sgd", momentum=0.9), {"backbone": {"w": jnp.zeros(())}, "heads": {}}
    slots, place = optimizer.init(spec, params), 0.0
    for k in range(1, 8):
        grads = {"backbone": {"w": jnp.float32(2.0)}, "heads": {}}
        params, slots = optimizer.update(spec, lane(0.1, 0.0), jnp.int32(k), grads, slots, params, {})
        place -= 0.1 * 2.0 * (1 - 0.9**k) / (1 - 0.9)
        assert float(params["backbone"]["w"]) == pytest.approx(place, rel=1e-6)


def test_a_resting_head_keeps_parameters_and_slots_and_the_others_move():
    spec = Optimizer()
    one = {"bias": jnp.ones(2)}
    params = {"backbone": {"w": jnp.ones(3)}, "heads": {"x": one, "y": one}}
    slots = optimizer.init(spec, params)
    grads = jax.tree.map(jnp.ones_like, params)
    active = {"x": jnp.bool_(False), "y": jnp.bool_(True)}
    moved, new = optimizer.update(spec, lane(), jnp.int32(0), grads, slots, params, active)
    assert same(moved["heads"]["x"], one)
    assert same(new["heads/x"], slots["heads/x"])
    for part, other in ((moved["heads"]["y"], one), (moved["backbone"], params["backbone"])):
        assert not same(part, other)
    assert not same(new["heads/y"], slots["heads/y"])


def rates(spec, lr=0.3, steps=40):
    one = lambda k: jnp.float32(optimizer.rate(spec, lane(lr, steps=steps), k))  # noqa: E731
    return np.asarray(jax.vmap(one)(jnp.arange(steps)))


def test_a_constant_rate_is_constant():
    np.testing.assert_array_equal(rates(Optimizer()), np.full(40, 0.3, np.float32))


def test_cosine_without_warm_up_equals_optax():
    expected = optax.schedules.cosine_decay_schedule(0.3, 40)(jnp.arange(40))
    np.testing.assert_allclose(rates(Optimizer(schedule="cosine")), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warm_up_equals_optax(schedule):
    """A quarter of 40 steps: step 0 has a tenth of the rate (not none), step 9 all of it; then the schedule."""
    after = optax.schedules.cosine_decay_schedule(0.3, 30) if schedule == "cosine" else lambda k: jnp.full(k.shape, 0.3)
    rise = optax.schedules.linear_schedule(0.0, 0.3, 10)(jnp.arange(1, 11))
    expected = np.concatenate([rise, after(jnp.arange(30))])
    np.testing.assert_allclose(rates(Optimizer(schedule=schedule, warmup=0.25)), expected, rtol=1e-5, atol=1e-7)
