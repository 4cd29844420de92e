"""What a network does to each row: dense layers, GELU, LayerNorm."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mtl.cpu import replace
from mtl.cpu.products import product


def dense(x: Float[Array, "*rows c"], kernel: Float[Array, "c d"]) -> Float[Array, "*rows d"]:
    """Return x · kernel, a matrix product whose kernel gets its gradient fast (see ``mtl.cpu.products``).

    Args:
      x: rows, of any leading shape.
      kernel: [c, d].

    >>> dense(jnp.ones((1, 2)), jnp.ones((2, 3)))
    Array([[2., 2., 2.]], dtype=float32)
    """
    return product(x, kernel) if replace.used() else x @ kernel


def gelu(x: Float[Array, "*rows c"]) -> Float[Array, "*rows c"]:
    """Return x · Φ(x), with the normal distribution's Φ (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    The kernel computes Φ by one erf, as PyTorch does, where ``jax.nn.gelu`` has two branches for the relative error of
    its far negative tail, and its gradient keeps x alone: 0.94 of the time of a transformer's MLP.

    Args:
      x: numbers.

    >>> gelu(jnp.ones((1,)))
    Array([0.8413447], dtype=float32)
    """
    return _gelu(x) if replace.used() else jax.nn.gelu(x, approximate=False)


def layer_norm(
    x: Float[Array, "*rows c"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: float = 1e-6
) -> Float[Array, "*rows c"]:
    """Return (x − mean x) / √(var x + ε) ⊙ scale + bias, row by row (Ba et al. 2016, arXiv:1607.06450).

    The variance takes two passes (E[x²] − E[x]² in float32 loses a spread of 1 around 10,000). Means along a row are
    products with a column of 1/c, as XLA adds along a row one number at a time, and the gradient is written out: 0.8 of
    the time of a ViT-Ti/4's step.

    Args:
      x: rows, of any leading shape.
      scale: [c].
      bias: [c].
      epsilon: ε, added to the variance.

    >>> layer_norm(jnp.array([[1.0, 3.0]]), jnp.ones(2), jnp.zeros(2))
    Array([[-0.9999995,  0.9999995]], dtype=float32)
    """
    return _layer_norm(epsilon, x.reshape(-1, x.shape[-1]), scale, bias).reshape(x.shape)


@jax.custom_vjp
def _gelu(x: Array) -> Array:
    return x * _phi(x)


def _phi(x: Array) -> Array:
    return 0.5 * (1 + lax.erf(x * math.sqrt(0.5)))


def _gelu_bwd(x: Array, g: Array) -> tuple[Array]:
    return (g * (_phi(x) + x * jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)),)


_gelu.defvjp(lambda x: (_gelu(x), x), _gelu_bwd)


def _mean(x: Array) -> Array:
    return x @ jnp.full((x.shape[-1], 1), 1 / x.shape[-1], x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer_norm(epsilon: float, x: Array, scale: Array, bias: Array) -> Array:
    return _layer_norm_fwd(epsilon, x, scale, bias)[0]


def _layer_norm_fwd(epsilon: float, x: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    centred = x - _mean(x)
    inverse = lax.rsqrt(_mean(centred * centred) + epsilon)
    y = centred * inverse
    return y * scale[None] + bias[None], (y, inverse, scale)


def _layer_norm_bwd(epsilon: float, kept: tuple[Array, Array, Array], g: Array) -> tuple[Array, Array, Array]:
    y, inverse, scale = kept
    d_y = g * scale[None]
    return inverse * (d_y - _mean(d_y) - y * _mean(d_y * y)), jnp.sum(g * y, axis=0), jnp.sum(g, axis=0)


_layer_norm.defvjp(_layer_norm_fwd, _layer_norm_bwd)
