"""Random bits written out are JAX's own, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl.train import threefry


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
@pytest.mark.parametrize("data", [0, 1, 2**31, 2**32 - 1])
def test_keys_and_bits_are_those_of_jax(seed, data):
    mine, theirs = (fold(jax.random.key(seed), jnp.uint32(data)) for fold in (threefry.fold_in, jax.random.fold_in))
    np.testing.assert_array_equal(jax.random.key_data(mine), jax.random.key_data(theirs))
    np.testing.assert_array_equal(threefry.bits(mine, 33), jax.random.bits(theirs, (33,), jnp.uint32))
    np.testing.assert_array_equal(jax.random.normal(mine, (3,)), jax.random.normal(theirs, (3,)))
