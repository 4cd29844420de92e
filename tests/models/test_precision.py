"""Less memory without another answer: blocks computed again, and a backbone that computes in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl import params as paths
from mtl.config import ConfigError
from mtl.models import build, register
from mtl.tasks import Task
from mtl.train.trial import shapes, stages_of
from tests.train.build import curves, gap, run_all, trial

TASKS = (Task("goal", "binary"),)
MODELS = {
    "cnn": ({"channels": (4, 8), "features": 8, "norm": "batch"}, (8, 8, 1)),
    "resnet": ({"width": 4, "norm": "group"}, (16, 16, 3)),
    "vit": ({"patch": 4, "width": 12, "depth": 3, "heads": 3}, (16, 16, 3)),
    "efficientnet_lite": ({"stages": ((3, 1, 6, 4, 2),), "stem": 4, "features": 8}, (16, 16, 3)),
}


def gradients(model, weights, x):
    def loss(params):
        outputs, state = model.apply(params, weights.state, x, train=True, rng=jax.random.key(0))
        return jnp.sum(outputs["goal"] ** 2), state

    fn = jax.jit(jax.grad(loss, has_aux=True))
    return fn.lower(weights.params).compile(), fn


def filled(model, shape, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.uniform(0.05, 0.3, a.shape).astype(a.dtype), shapes(model, shape))


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n != "cnn" else []) for n in MODELS])
def test_rematerialised_blocks_have_the_same_parameters_and_gradients(name):
    options, shape = MODELS[name]
    kept, again = (build(name, {**options, "remat": remat}, TASKS, "lecun_normal") for remat in (False, True))
    weights = filled(kept, shape)
    assert paths.flatten(shapes(again, shape)).keys() == paths.flatten(weights).keys()
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, *shape)), jnp.float32)
    (one, _), (two, _) = gradients(kept, weights, x), gradients(again, weights, x)
    grads, state = one(weights.params)
    others, other_state = two(weights.params)
    size = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    assert gap(grads, others) < 1e-5 * max(1.0, size)
    if state:
        assert gap(state, other_state) < 1e-6


def test_rematerialisation_keeps_little_for_the_backward_pass():
    """What the forward pass hands to the backward one; a CPU may still choose not to compute it again."""
    options, kept = {"patch": 4, "width": 48, "depth": 8, "heads": 3}, []
    for remat in (False, True):
        model = build("vit", {**options, "remat": remat}, TASKS, "lecun_normal")
        weights = filled(model, (32, 32, 3))
        x = jnp.zeros((16, 32, 32, 3))
        _, backward = jax.eval_shape(
            lambda p, m=model, x=x: jax.vjp(lambda p: m.apply(p, {}, x, train=True)[0], p), weights.params
        )
        kept.append(sum(a.size for a in jax.tree.leaves(backward)))
    assert kept[1] < 0.3 * kept[0]


def test_bfloat16_computes_in_it_and_keeps_parameters_and_heads_in_float32():
    full, half = (build("mlp", {"hidden": (32, 16)}, TASKS, "lecun_normal", d) for d in ("float32", "bfloat16"))
    weights = filled(full, (8,))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(16, 8)), jnp.float32)
    a, b = (m.apply(weights.params, {}, x)[0]["goal"] for m in (full, half))
    assert a.dtype == b.dtype == jnp.float32
    assert 0 < float(jnp.abs(a - b).max()) < 0.02 * float(jnp.abs(a).max())
    text = jax.jit(lambda p: half.apply(p, {}, x)[0]["goal"]).lower(weights.params).as_text()
    assert "bf16" in text
    grads = jax.grad(lambda p: half.apply(p, {}, x)[0]["goal"].sum())(weights.params)
    assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_a_trial_in_bfloat16_trains_nearly_as_one_in_float32():
    one, two = (run_all(trial(regime="scratch", model__dtype=d))[3][0] for d in ("float32", "bfloat16"))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(two.weights))
    assert 0 < gap(one.weights, two.weights) < 0.1
    np.testing.assert_allclose(curves(one), curves(two), rtol=0.05)


def test_bfloat16_beside_float64_parameters_is_refused():
    import flax.linen as nn

    from mtl import models

    class Wide(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.Dense(3, param_dtype=jnp.float64, name="dense")(x)

    register("wide")(Wide)
    try:
        message = r'"bfloat16": parameter backbone/dense/.* is float64'
        with jax.enable_x64(True):
            t = trial(regime="scratch", model__name="wide", model__options={}, model__dtype="bfloat16")
            with pytest.raises(ConfigError, match=message):
                stages_of(t, (8,))
    finally:
        models.MODELS.pop("wide")
