"""A model that takes its inputs as ids is told from one that computes with them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from mtl.models import whole_numbers
from mtl.models.model import Model
from mtl.tasks import Task


class Backbone(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(4, name="top")(getattr(self, self.kind)(x))

    @nn.nowrap
    def one_hot(self, x):
        return jax.nn.one_hot(x, 5).reshape(len(x), -1)

    @nn.nowrap
    def compared(self, x):
        return (x[..., None] == jnp.arange(5)[None, None]).astype(jnp.float32).reshape(len(x), -1)

    @nn.nowrap
    def embedded(self, x):
        return nn.Embed(9, 3, name="e")(x.astype(int)).sum(axis=1)

    @nn.nowrap
    def rounded_inside(self, x):
        return jax.jit(lambda x: jnp.floor(x).astype(int) * 1.0)(x)

    @nn.nowrap
    def gated(self, x):
        h = nn.remat(nn.Dense)(4, name="r")(x)
        return h * (h > 0).astype(int)

    @nn.nowrap
    def masked(self, x):
        return jnp.where(x == 0, 1.0, x)

    @nn.nowrap
    def normalised(self, x):
        return nn.LayerNorm(name="n")(x)


@pytest.mark.filterwarnings("ignore:jax.nn.one_hot input should be integer")
@pytest.mark.parametrize("kind", ["one_hot", "compared", "embedded", "rounded_inside"])
def test_ids(kind):
    assert whole_numbers(Model(Backbone(kind), (Task("t", "binary"),)), (3,))


@pytest.mark.parametrize("kind", ["gated", "masked", "normalised"])
def test_numbers(kind):
    assert not whole_numbers(Model(Backbone(kind), (Task("t", "binary"),)), (3,))
