"""Relatedness moves transfer: pretrained on three tasks, a small network's features tell the fourth from 50 labels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from mtl.data import road_scenes_table
from mtl.data.sets.road_scenes import TASKS

FILTERS = ((5, 3, 16, 2), (5, 16, 32, 2), (3, 32, 48, 1))


def fresh(key):
    keys = jax.random.split(key, len(FILTERS))
    shapes = [(size, size, before, after) for size, before, after, _ in FILTERS]
    return {
        "filters": [jax.random.normal(k, s) * np.sqrt(2 / np.prod(s[:3])) for k, s in zip(keys, shapes, strict=True)],
        "biases": [jnp.zeros((1, 1, 1, s[3])) for s in shapes],
        "head": jnp.zeros((96, 3)),
        "head_bias": jnp.zeros((1, 3)),
    }


@jax.jit
def features(params, x):
    for (*_, stride), kernel, bias in zip(FILTERS, params["filters"], params["biases"], strict=True):
        dims = ("NHWC", "HWIO", "NHWC")
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dims) + bias
        )
    return jnp.concatenate([x.max((1, 2)), x.mean((1, 2))], -1)


def loss(params, x, y):
    logits = features(params, x) @ params["head"] + params["head_bias"]
    return optax.sigmoid_binary_cross_entropy(logits, y).mean()


def pretrained(params, x, y, steps=500, batch=64):
    optimizer = optax.adam(2e-3)
    state, rng = optimizer.init(params), np.random.default_rng(0)

    @jax.jit
    def step(params, state, x, y):
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        rows = rng.integers(0, len(x), batch)
        params, state = step(params, state, x[rows], y[rows])
    return params


def probed(params, x, y):
    """Mean AUROC, over ten draws of 50 labels, of a logistic regression on the features."""
    h = np.concatenate([np.asarray(features(params, part)) for part in np.split(x, 4)])
    h = (h - h.mean(0)) / (h.std(0) + 1e-6)
    areas = []
    for a in range(0, 1000, 100):
        probe = LogisticRegression(C=0.05, max_iter=500).fit(h[a : a + 50], y[a : a + 50])
        areas.append(roc_auc_score(y[1000:], probe.decision_function(h[1000:])))
    return np.mean(areas)


@pytest.mark.slow
def test_relatedness_decides_what_pretraining_brings_a_convolutional_network():
    gain = {}
    for rho in (0.0, 1.0):
        table = road_scenes_table(examples=5000, size=32, relatedness=rho)
        x, target = table.x - np.float32(0.45), "stop_sign"
        y = np.stack([table.labels[name] for name in TASKS if name != target], axis=1)
        start = fresh(jax.random.key(0))
        trained = pretrained(start, x[:3000], y[:3000])
        gain[rho] = probed(trained, x[3000:], table.labels[target][3000:])
        gain[rho] -= probed(start, x[3000:], table.labels[target][3000:])
    assert gain[1.0] > 0.15
    assert gain[0.0] < gain[1.0] - 0.1
