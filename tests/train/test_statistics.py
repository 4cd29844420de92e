"""Batch statistics are those of the whole batch, and of more than one value, or the config is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl import models
from mtl.config import ConfigError
from mtl.train import loop
from mtl.train.loop import check_spread
from mtl.train.placement import MAP, Placement
from mtl.train.trial import stages_of
from tests.train.build import INPUTS, stages, trial

FLAT, IMAGE, PIXEL = (INPUTS,), (8, 8, 1), (1, 1, 6)


@pytest.fixture(scope="module", autouse=True)
def normed():
    @models.register("normed")
    class Normed(nn.Module):
        """A foreign backbone on flat inputs; ``own``: with statistics of its own make."""

        own: bool = False

        @nn.compact
        def __call__(self, x, train):
            x = nn.Dense(3, name="below")(x)
            return (Centred if self.own else nn.BatchNorm)(not train, name="above")(x)

    yield
    del models.MODELS["normed"]


class Centred(nn.Module):
    """Less the batch's mean."""

    use_running_average: bool

    @nn.compact
    def __call__(self, x):
        """Return centred values."""
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(x.shape[-1]))
        if not self.use_running_average:
            mean.value = x.mean(0)
        return x - mean.value[None] + self.param("bias", nn.initializers.zeros, (x.shape[-1],))[None]


def staged(name, options, shape, **changes):
    return stages_of(trial(shape, model__name=name, model__options=options, **changes), shape)


BATCH = [
    ("cnn", {"channels": (4,), "features": 4, "norm": "batch"}, IMAGE),
    ("resnet", {"width": 8}, IMAGE),
    ("normed", {}, FLAT),
    ("normed", {"own": True}, FLAT),
]


@pytest.mark.parametrize(("name", "options", "shape"), BATCH)
def test_micro_batches_are_refused_where_a_phase_uses_a_batchs_statistics(name, options, shape):
    for regime in ("scratch", "multitask", "linear_probe"):
        staged(name, options, shape, regime=regime)
        with pytest.raises(
            ConfigError, match=r"^config\.accumulate = 2: would take batch statistics from micro-batches"
        ):
            staged(name, options, shape, regime=regime, accumulate=2)
    staged(name, options, shape, regime="random_probe", accumulate=2)  # A frozen trunk has its own.
    with pytest.raises(ConfigError, match=r"^config\.accumulate = 2"):
        staged(name, options, shape, regime="random_probe", accumulate=2, trunk_mode="train")


@pytest.mark.parametrize(
    ("name", "options"), [("cnn", {"norm": "group"}), ("cnn", {"norm": "none"}), ("vit", {"depth": 1})]
)
def test_micro_batches_are_taken_where_there_are_no_statistics(name, options):
    staged(name, options, IMAGE, regime="multitask", accumulate=2)


def test_what_trains_decides():
    """Below the block with statistics nothing trains: they stay, and micro-batches are as good as the batch."""
    only = {"below": ({"trainable": "backbone/below/.*"},), "above": ({"trainable": "backbone/above/.*"},)}
    staged("normed", {}, FLAT, regime="below", regimes=only, accumulate=2)
    with pytest.raises(ConfigError, match=r"^config\.accumulate = 2"):
        staged("normed", {}, FLAT, regime="above", regimes=only, accumulate=2)


@pytest.mark.parametrize(
    ("name", "options", "shape", "refused"),
    [
        ("normed", {}, FLAT, True),
        ("normed", {"own": True}, FLAT, True),
        ("resnet", {"width": 8}, PIXEL, True),
        ("resnet", {"width": 8}, IMAGE, True),  # Its last stage has one pixel left.
        ("cnn", {"channels": (4,), "norm": "batch"}, IMAGE, False),
        ("cnn", {"channels": (4,), "norm": "group"}, IMAGE, False),
        ("mlp", {}, FLAT, False),
    ],
)
def test_one_value_a_channel_is_refused(name, options, shape, refused):
    for regime, rows in (("scratch", 1), ("multitask", 3)):  # Joint batches have a row of each task.
        changes = {"regime": regime, "batch_size": 1, "joint_sampling": "per_task"}
        if refused and rows == 1:
            with pytest.raises(
                ConfigError, match=r"^config\.batch_size = 1: gives batch statistics one value a channel"
            ):
                staged(name, options, shape, **changes)
        else:
            staged(name, options, shape, **changes)


@pytest.mark.slow
def test_what_is_refused_does_not_depend_on_its_inputs():
    """The control: normalised by a batch of one, features are the same whatever the inputs are."""
    for name, options, shape in (("normed", {}, FLAT), ("resnet", {"width": 8}, PIXEL)):
        model = models.build(name, options, trial().tasks)
        params, state = model.init(jax.random.key(0), jnp.zeros((1, *shape)))
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 1, *shape)), jnp.float32)
        one, other = (model.trunk(params["backbone"], state, v, train=True)[0] for v in x)
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_devices_share_of_a_batch_has_more_than_one_value_too():
    (stage,) = staged("normed", {}, FLAT, regime="scratch", batch_size=4)
    check_spread(stage.program, FLAT, MAP)
    check_spread(stage.program, FLAT, Placement("map", data=2))
    with pytest.raises(ConfigError, match=r"^config\.batch_size = 4: .* one value a channel over 4 devices"):
        check_spread(stage.program, FLAT, Placement("map", data=4))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "advised"), [("mlp", True), ("normed", False)])
def test_micro_batches_are_advised_only_where_they_can_be(name, advised, monkeypatch):
    from tests.train.build import data_of, initial_of, run_phase

    t = trial(regime="scratch", model__name=name, model__options={})
    monkeypatch.setattr(loop.placements, "memory_limit", lambda: 1)
    with pytest.raises(loop.placements.PlacementError, match="lower batch_size") as error:
        run_phase([t], [stages(t)[0]], data_of(t), initial_of(t))
    assert ("accumulate" in str(error.value)) == advised
