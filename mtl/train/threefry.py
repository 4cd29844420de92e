"""JAX's default random bits, written out: the same bits, without the loops that JAX makes of them on a CPU.

JAX rolls Threefry's rounds into a loop there. Inside a training loop that is two more loops a step of a dozen tiny
operations each, and a quarter of a second to compile for each place that draws; written out, all twenty rounds are one
fused operation (measured in a loop: 0.04 µs instead of 1.3 for 32 draws, compiled in 0.1 s instead of 0.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.random
import jax.numpy as jnp
from jaxtyping import Array, UInt32

#: An index of 32 bits counts so many numbers; what draws more is left to JAX.
MOST = 2**32

#: By how many bits each round turns a word.
_TURNS = ((13, 15, 26, 6), (17, 29, 16, 24))


@jax.jit  # Traced once for each shape: its 160 operations would be traced for every draw of every program.
def threefry(key: UInt32[Array, " two"], high: Array, low: Array) -> tuple[Array, Array]:
    """Return Threefry-2x32 of counters under a key, twenty rounds (Salmon et al. 2011, "Parallel random numbers").

    Args:
      key: two words.
      high, low: the two words of each counter, uint32 of one shape.

    >>> [int(word) for word in threefry(jnp.zeros(2, jnp.uint32), jnp.uint32(0), jnp.uint32(0))]  # Their test vector.
    [1797259609, 2579123966]
    """
    words = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    a, b = high + words[0], low + words[1]
    for group in range(5):
        for turn in _TURNS[group % 2]:
            a = a + b
            b = a ^ ((b << jnp.uint32(turn)) | (b >> jnp.uint32(32 - turn)))
        a = a + words[(group + 1) % 3]
        b = b + words[(group + 2) % 3] + jnp.uint32(group + 1)
    return a, b


def fold_in(key: Array, data: Array | int) -> Array:
    """Return ``jax.random.fold_in(key, data)``, bit for bit.

    Args:
      key: a key of ``WRITTEN_OUT``, or of JAX's own ``threefry2x32``.
      data: 32 bits.
    """
    return jax.random.wrap_key_data(_fold_in(jax.random.key_data(key), data), impl=WRITTEN_OUT)


def bits(key: Array, size: int) -> UInt32[Array, " size"]:
    """Return ``jax.random.bits(key, (size,), uint32)``, bit for bit."""
    return _bits(jax.random.key_data(key), 32, (size,))


def key(seed: Array | int) -> Array:
    """Return ``jax.random.key(seed)``, whose numbers are those of JAX's own key, in programs that compile faster.

    >>> bool(jax.random.normal(key(7)) == jax.random.normal(jax.random.key(7, impl="threefry2x32")))
    True
    """
    return jax.random.wrap_key_data(_seed(seed), impl=WRITTEN_OUT)


def once(key: Array) -> Array:
    """Return a key with the same numbers for what is drawn once, outside of loops: see ``ONCE``.

    >>> own = key(7)
    >>> bool(jax.random.normal(once(own)) == jax.random.normal(own))
    True
    """
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=ONCE)


def _theirs(words: Array) -> Array:
    """Return JAX's own key of these words."""
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def _seed(seed: Array | int) -> Array:
    return jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))


def _fold_in(words: Array, data: Array | int) -> Array:
    low = jnp.uint32(data) if isinstance(data, int) else data.astype(jnp.uint32)
    return jnp.stack(threefry(words, jnp.uint32(0), low))


def _counted(words: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return two words for each place of an array, which its index counts."""
    low = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return threefry(words, jnp.zeros(shape, jnp.uint32), low)


def _split(words: Array, shape: tuple[int, ...]) -> Array:
    if math.prod(shape) > MOST:
        return jax.random.key_data(jax.random.split(_theirs(words), shape))
    return jnp.stack(_counted(words, shape), axis=-1)


def _bits(words: Array, width: int, shape: tuple[int, ...]) -> Array:
    if math.prod(shape) > MOST:
        return jax.random.bits(_theirs(words), shape, f"uint{width}")
    high, low = _counted(words, shape)
    if width == 64:
        return (high.astype(jnp.uint64) << jnp.uint64(32)) | low.astype(jnp.uint64)
    return (high ^ low).astype(f"uint{width}")


def _fold_in_rolled(words: Array, data: Array | int) -> Array:
    return jax.random.key_data(jax.random.fold_in(_theirs(words), data))


def _implementation(fold_in: Callable[[Array, Array | int], Array], name: str, tag: str) -> Any:
    """Return the implementation of keys with JAX's numbers, written out, and a way of folding."""
    return jax.extend.random.define_prng_impl(
        key_shape=(2,), seed=_seed, split=_split, random_bits=_bits, fold_in=fold_in, name=name, tag=tag
    )


#: The implementation of keys whose bits are written out: whatever ``jax.random`` draws with one is what it draws with a
#: key of its own (and ``jax_threefry_partitionable``, its default).
WRITTEN_OUT = _implementation(_fold_in, "written out", "mtl")

#: The same where all is drawn once: keys are folded in JAX's loops, numbers are written out. XLA would write each
#: folding anew into all that draws from its key; initial weights of a perceptron with three heads compile in a third of
#: the time so (1.6 s for 4.5 of processor time, single runs; other models: scripts/benchmarks/README.md).
ONCE = _implementation(_fold_in_rolled, "folded in loops", "mtl1")
