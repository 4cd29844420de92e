"""The best hand-written JAX loop we know for the same work: one jit, one loop, one matrix for all heads.

It draws its batches, computes its masked loss and keeps the sum of its losses as the engine does, with the same
operations; it can do nothing else.
"""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.cases import CASES, Case, inputs, labels
from benchmarks.side import Side
from mtl.cpu import with_kernels


def _mlp(case: Case, key: jax.Array) -> tuple[dict, object]:
    sizes = (*case.shape, *case.options["hidden"])
    pairs = list(itertools.pairwise(sizes))
    keys = jax.random.split(key, len(pairs))
    scale = jax.nn.initializers.lecun_normal()
    params = {f"w{i}": scale(k, pair) for i, (k, pair) in enumerate(zip(keys, pairs, strict=True))}
    params |= {f"b{i}": jnp.zeros(b) for i, (_, b) in enumerate(pairs)}
    params |= {"head": jnp.zeros((sizes[-1], case.outputs)), "bias": jnp.zeros(case.outputs)}

    def apply(p: dict, x: jax.Array) -> jax.Array:
        for i in range(len(pairs)):
            x = jax.nn.relu(x @ p[f"w{i}"] + p[f"b{i}"])
        return x @ p["head"] + p["bias"]

    return params, apply


def _cnn(case: Case, key: jax.Array) -> tuple[dict, object]:
    channels, features = case.options["channels"], case.options["features"]
    keys = jax.random.split(key, len(channels) + 1)
    scale = jax.nn.initializers.lecun_normal()
    params, before, side = {}, case.shape[-1], case.shape[0]
    for i, c in enumerate(channels):
        params |= {f"w{i}": scale(keys[i], (3, 3, before, c)), f"b{i}": jnp.zeros(c)}
        before, side = c, side // 2
    params |= {"dense": scale(keys[-1], (side * side * before, features)), "dense_bias": jnp.zeros(features)}
    params |= {"head": jnp.zeros((features, case.outputs)), "bias": jnp.zeros(case.outputs)}

    def apply(p: dict, x: jax.Array) -> jax.Array:
        for i in range(len(channels)):
            x = jax.lax.conv_general_dilated(x, p[f"w{i}"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = nn.max_pool(jax.nn.relu(x + p[f"b{i}"]), (2, 2), (2, 2))
        x = jax.nn.relu(x.reshape(x.shape[0], -1) @ p["dense"] + p["dense_bias"])
        return x @ p["head"] + p["bias"]

    return params, with_kernels(apply)


def make(case: str) -> Side:
    """Return the loop of a case; one unit is a step."""
    c = CASES[case]
    params, apply = (_mlp if c.backbone == "mlp" else _cnn)(c, jax.random.key(0))
    x, y = jnp.asarray(inputs(c, c.rows)), jnp.asarray(labels(c, c.rows))
    mask = ~jnp.isnan(y) if c.binary else None
    y = jnp.nan_to_num(y)
    optimizer = optax.adam(1e-3)

    def loss(p: dict, rows: jax.Array, x: jax.Array, y: jax.Array, mask: jax.Array | None) -> jax.Array:
        z = apply(p, x[rows])
        if mask is None:
            return optax.softmax_cross_entropy_with_integer_labels(z, y[rows]).mean()
        values = jnp.where(mask[rows], optax.sigmoid_binary_cross_entropy(z, y[rows]), 0)
        return values.sum() / c.batch

    def advance(held: tuple, x: jax.Array, y: jax.Array, mask: jax.Array | None, begin: int, end: int) -> tuple:
        key = jax.random.key(0)

        def body(step: jax.Array, held: tuple) -> tuple:
            p, opt_state, total = held
            rows = jax.random.randint(jax.random.fold_in(key, step), (c.batch,), 0, c.rows)
            value, grads = jax.value_and_grad(loss)(p, rows, x, y, mask)
            updates, opt_state = optimizer.update(grads, opt_state, p)
            return optax.apply_updates(p, updates), opt_state, total + value

        return jax.lax.fori_loop(begin, end, body, held)

    compiled = jax.jit(advance, donate_argnums=0)
    held = [(params, optimizer.init(params), jnp.float32(0)), 0]

    def run(units: int) -> None:
        begin = held[1]
        held[0] = compiled(held[0], x, y, mask, jnp.int32(begin), jnp.int32(begin + units))
        held[1] = begin + units
        jax.block_until_ready(held[0])

    return Side(run, {"batch": c.batch})
