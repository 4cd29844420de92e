"""What XLA makes of a large matrix product, outside of any loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from benchmarks.side import Side


def make_product(size: int = 1536) -> Side:
    """Return products of two matrices; one unit is a product."""
    a, b = jnp.ones((size, size)), jnp.ones((size, size))
    product = jax.jit(jnp.matmul)

    def run(units: int) -> None:
        for _ in range(units):
            jax.block_until_ready(product(a, b))

    return Side(run, {"flops": 2.0 * size**3})
