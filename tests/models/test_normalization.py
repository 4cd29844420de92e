"""Normalisation layers keep what a float64 two-pass variance keeps, wherever activations lie."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl.models import build
from mtl.models.layers import LayerNorm, normalize
from mtl.tasks import Task

EPSILON = 1e-5


@pytest.mark.parametrize("offset", [0.0, 100.0, 3000.0])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_first_layer_of_a_resnet_is_numpys(norm, offset):
    """A bias is taken off again, and the spread that is left is the right one."""

    class Only(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return normalize(x, norm, train, "norm")

    x = jnp.asarray(offset + np.random.default_rng(0).normal(size=(8, 6, 6, 32)), jnp.float32)
    module = Only()
    variables = module.init(jax.random.key(0), x, True)
    found, _ = module.apply(variables, x, True, mutable=["batch_stats"])
    wide = np.asarray(x, np.float64)
    axes = (0, 1, 2) if norm == "batch" else (1, 2)  # 32 groups of one channel.
    right = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + EPSILON)
    np.testing.assert_allclose(found, right, atol=2e-3 * max(1.0, offset / 1000))


@pytest.mark.parametrize("offset", [0.0, 100.0, 3000.0])
def test_a_layer_norm_is_numpys(offset):
    x = jnp.asarray(offset + np.random.default_rng(0).normal(size=(8, 6, 32)), jnp.float32)
    module = LayerNorm()
    found = module.apply(module.init(jax.random.key(0), x), x)
    wide = np.asarray(x, np.float64)
    right = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    np.testing.assert_allclose(found, right, atol=2e-3 * max(1.0, offset / 1000))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet", {"norm": "batch"}),
        ("resnet", {"norm": "group"}),
        ("cnn", {"norm": "batch"}),
        ("cnn", {}),
        ("vit", {}),
    ],
)
def test_no_layer_takes_a_variance_in_one_pass(name, options):
    small = {
        "resnet": {"width": 8},
        "cnn": {"channels": (8,)},
        "vit": {"width": 12, "heads": 3, "depth": 1, "patch": 4},
    }
    model = build(name, small[name] | options, (Task("t", "binary"),))
    x = jnp.zeros((2, 8, 8, 3))
    seen = []

    def look(call, args, kwargs, context):
        seen.append(getattr(context.module, "use_fast_variance", None))
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        jax.eval_shape(model.init, jax.random.key(0), x)
    assert False in seen
    assert True not in seen
