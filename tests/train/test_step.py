"""The gradient of the whole loss, against finite differences in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl.train import phase
from mtl.train.program import Weights
from mtl.train.trial import shapes
from tests.train.build import batch_of, hypers_of, loss_on, stages, trial


@pytest.mark.parametrize("denominator", ["examples", "labels", "tasks"])
def test_gradient_equals_finite_differences(denominator):
    options = {"pos_weight": 3.0, "label_smoothing": 0.1, "focal_gamma": 1.5}
    t = trial(
        regime="multitask", model__options={"hidden": (3,)}, loss__denominator=denominator,
        loss__weights={"kind": 0.5, "goal": 2.0}, task_options={"goal": options},
    )  # fmt: skip
    (stage,) = stages(t)
    nan, rng = np.nan, np.random.default_rng(1)
    labels = {"kind": [1, 2, -1, 0, -1], "rare": [nan] * 5, "goal": [1.0, nan, 0.0, 1.0, nan]}
    mask = {"kind": [1, 1, 0, 1, 0], "rare": [0] * 5, "goal": [1, 0, 1, 1, 0]}
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: rng.normal(size=a.shape), shapes(t.model(), (4,)).params)
        moving, frozen = phase.start(stage.program, hypers_of(stage), Weights(params, {}))
        batch = batch_of(
            stage.program,
            jnp.asarray(rng.normal(size=(5, 4))),
            {k: jnp.asarray(v) for k, v in labels.items()},
            {k: jnp.asarray(v, bool) for k, v in mask.items()},
        )
        lane = dataclasses.replace(hypers_of(stage), weights=jnp.asarray([0.5, 1.0, 2.0]))
        flat, rebuild = jax.flatten_util.ravel_pytree(moving.trainable)

        def loss(v):
            return loss_on(stage.program, True, lane, rebuild(v), frozen, {}, batch, jax.random.key(0))[0]

        exact = jax.jit(jax.grad(loss))(flat)
        h = 1e-5 * jnp.eye(len(flat))
        both = jax.jit(jax.vmap(loss))(jnp.concatenate([flat[None] + h, flat[None] - h]))
        numeric = (both[: len(flat)] - both[len(flat) :]) / 2e-5
        assert exact.dtype == jnp.float64
        np.testing.assert_allclose(exact, numeric, atol=1e-9, rtol=1e-6)
        assert np.count_nonzero(exact) > len(flat) / 2


def test_task_weights_are_numbers_of_the_lane():
    light, heavy = (stages(trial(regime="multitask", loss__weights={"goal": w}))[0] for w in (0.5, 2.0))
    assert (light.hypers.weights, heavy.hypers.weights) == ((1.0, 1.0, 0.5), (1.0, 1.0, 2.0))
