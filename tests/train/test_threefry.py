"""Random bits written out are JAX's own, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl.models import MLP, Model
from mtl.tasks import Task
from mtl.train import threefry


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
@pytest.mark.parametrize("data", [0, 1, 2**31, 2**32 - 1])
def test_keys_and_bits_are_those_of_jax(seed, data):
    mine, theirs = (fold(jax.random.key(seed), jnp.uint32(data)) for fold in (threefry.fold_in, jax.random.fold_in))
    np.testing.assert_array_equal(jax.random.key_data(mine), jax.random.key_data(theirs))
    np.testing.assert_array_equal(threefry.bits(mine, 33), jax.random.bits(theirs, (33,), jnp.uint32))
    np.testing.assert_array_equal(jax.random.normal(mine, (3,)), jax.random.normal(theirs, (3,)))


DRAWS = {
    "uniform": lambda key: jax.random.uniform(key, (3, 5)),
    "normal": lambda key: jax.random.normal(key, (2, 2, 2)),
    "truncated": lambda key: jax.random.truncated_normal(key, -2, 2, (7,)),
    "bfloat16": lambda key: jax.random.normal(key, (9,), jnp.bfloat16),
    "int8": lambda key: jax.random.randint(key, (9,), -5, 90, jnp.int8),
    "randint": lambda key: jax.random.randint(key, (2,), 0, 1000),
    "bernoulli": lambda key: jax.random.bernoulli(key, 0.3, (40,)),
    "permutation": lambda key: jax.random.permutation(key, 50),
    "categorical": lambda key: jax.random.categorical(key, jnp.arange(6.0), shape=(20,)),
    "scalar": jax.random.uniform,
    "split": lambda key: jax.random.key_data(jax.random.split(key, (2, 3))),
    "split, then drawn": lambda key: jax.vmap(lambda k: jax.random.uniform(k, (2,)))(jax.random.split(key, 4)),
    "folded": lambda key: jax.random.uniform(jax.random.fold_in(key, 2**32 - 1)),
    "glorot": lambda key: jax.nn.initializers.glorot_uniform()(key, (4, 6)),
}


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
@pytest.mark.parametrize("name", DRAWS)
def test_whatever_is_drawn_with_a_key_is_what_jax_draws_with_its_own(name, seed):
    draw = jax.jit(DRAWS[name])
    np.testing.assert_array_equal(
        draw(threefry.key(jnp.uint32(seed))), draw(jax.random.key(jnp.uint32(seed), impl="threefry2x32"))
    )


def test_sixty_four_bits_are_those_of_jax():
    with jax.enable_x64(True):
        mine, theirs = threefry.key(5), jax.random.key(5, impl="threefry2x32")
        np.testing.assert_array_equal(jax.random.uniform(mine, (4,)), jax.random.uniform(theirs, (4,)))
        assert jax.random.uniform(mine, (4,)).dtype == np.float64


def test_what_an_index_of_32_bits_does_not_count_is_left_to_jax(monkeypatch):
    text = jax.jit(lambda: jax.random.uniform(threefry.key(0), (2**17, 2**16))).lower().as_text()
    assert "ui64" in text  # JAX counts with 64 bits there; nothing is computed.
    drawn = jax.random.uniform(threefry.key(3), (4, 3)), jax.random.key_data(jax.random.split(threefry.key(3), 5))
    jax.clear_caches()
    monkeypatch.setattr(threefry, "MOST", 2)
    np.testing.assert_array_equal(jax.random.uniform(threefry.key(3), (4, 3)), drawn[0])
    np.testing.assert_array_equal(jax.random.key_data(jax.random.split(threefry.key(3), 5)), drawn[1])
    jax.clear_caches()


def test_a_model_begins_with_the_numbers_that_a_key_of_jax_gives():
    model = Model(MLP((5,)), (Task("a", "binary"),), "lecun_normal")
    x = jnp.ones((1, 3))
    mine, theirs = (jax.jit(model.init)(key, x) for key in (threefry.key(3), jax.random.key(3, impl="threefry2x32")))
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)


def test_a_normal_number_is_compiled_without_a_loop():
    text = jax.jit(lambda s: jax.random.normal(threefry.key(s), (8,))).lower(jnp.uint32(0)).as_text()
    assert "while" not in text
    control = jax.jit(lambda s: jax.random.normal(jax.random.key(s, impl="threefry2x32"), (8,)))
    assert "while" in control.lower(jnp.uint32(0)).as_text()
