"""Any function with its slow operations replaced: convolutions, pools and matrix products of weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives
from jaxtyping import Array

from mtl.cpu import convolution, pooling, products

#: Axes as Flax lays images, kernels and what comes out: [b, h, w, c], [kh, kw, c, d], [b, h2, w2, d].
_LAYOUTS = {n: lax.conv_dimension_numbers((1,) * n, (1,) * n, how) for n, how in [
    (3, ("NWC", "WIO", "NWC")), (4, ("NHWC", "HWIO", "NHWC")),
]}  # fmt: skip


def used() -> bool:
    """Return whether kernels take the place of XLA's own operations: on a CPU."""
    return jax.default_backend() == "cpu"


def with_kernels(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that computes the same, by the kernels of this room where there are any.

    It is traced, and its operations are carried out one by one: a convolution of images or sequences by its kernel, so
    pooling and products with a matrix. Others stay as they are, and so does what lies inside a loop, a branch or a
    gradient of somebody else's own. Elsewhere than on a CPU it is the function itself.

    Args:
      function: of pytrees of arrays, to a pytree of arrays.

    >>> import flax.linen as nn
    >>> pool = with_kernels(lambda x: nn.max_pool(x, (2, 2), (2, 2)))
    >>> pool(jnp.arange(16.0).reshape(1, 4, 4, 1)).ravel()
    Array([ 5.,  7., 13., 15.], dtype=float32)
    """
    if not used():
        return function

    def run(*args: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        found = _evaluate(closed.jaxpr, closed.consts, *jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return run


def _evaluate(jaxpr: Any, consts: Sequence[Any], *args: Any) -> list[Any]:
    held = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, jex.Literal) else held[variable]

    for equation in jaxpr.eqns:
        given = [value(v) for v in equation.invars]
        with equation.ctx.manager:
            found = _carry_out(equation, given)
        held.update(zip(equation.outvars, found, strict=True))
    return [value(v) for v in jaxpr.outvars]


def _carry_out(equation: Any, given: list[Any]) -> Sequence[Any]:
    primitive, params = equation.primitive, equation.params
    kernel = _KERNELS[primitive](params, *map(jnp.asarray, given)) if primitive in _KERNELS else None
    if kernel is not None:
        return [kernel.astype(equation.outvars[0].aval.dtype)]
    if primitive is primitives.jit_p and _has_slow(params["jaxpr"].jaxpr):
        return _evaluate(params["jaxpr"].jaxpr, params["jaxpr"].consts, *given)
    if primitive is primitives.remat_p and _has_slow(params["jaxpr"]):
        inner = functools.partial(_evaluate, params["jaxpr"], [])
        again = jax.checkpoint(inner, prevent_cse=params["prevent_cse"], policy=params["policy"])
        return list(again(*given))
    found = primitive.bind(*given, **primitive.get_bind_params(params))
    return list(found) if primitive.multiple_results else [found]


def _has_slow(jaxpr: Any) -> bool:
    return any(e.primitive in _KERNELS or any(map(_has_slow, jex.jaxprs_in_params(e.params))) for e in jaxpr.eqns)


def _convolution(params: dict[str, Any], x: Any, kernel: Any) -> Array | None:
    """Return what a convolution gives; nothing for one that is dilated, in several groups or of a rare layout."""
    strides, pads = set(params["window_strides"]), params["padding"]
    dilated = {*params["lhs_dilation"], *params["rhs_dilation"], params["batch_group_count"]} != {1}
    if params["dimension_numbers"] != _LAYOUTS.get(x.ndim) or dilated or len(strides) > 1 or min(map(min, pads)) < 0:
        return None
    stride, groups = strides.pop(), params["feature_group_count"]
    depthwise = groups == x.shape[-1] == kernel.shape[-1] and kernel.shape[-2] == 1
    if not _floating(x, kernel) or (groups > 1 and not depthwise):
        return None
    if x.ndim == 3:  # A sequence is an image of one row.
        found = _convolve(depthwise, x[:, None], kernel[None], stride, ((0, 0), *pads))
        return found[:, 0]
    return _convolve(depthwise, x, kernel, stride, tuple(pads))


def _convolve(depthwise: bool, x: Array, kernel: Array, stride: int, pads: Any) -> Array:
    # Computed in at least float32, as XLA accumulates.
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    how = convolution.depthwise if depthwise else convolution.convolve
    return how(stride, pads, x.astype(dtype), kernel.astype(dtype))


def _pool(kernel: Callable[..., Array], params: dict[str, Any], x: Any) -> Array | None:
    """Return what pooling gives; nothing for windows over other axes than those of images or sequences."""
    size, strides, pads = (params[k][1:-1] for k in ("window_dimensions", "window_strides", "padding"))
    outer = [params["window_dimensions"][i] for i in (0, -1)] + [params["window_strides"][i] for i in (0, -1)]
    outer += [*params["padding"][0], *params["padding"][-1]]
    dilated = {*params["base_dilation"], *params["window_dilation"]} != {1}
    if x.ndim not in (3, 4) or outer != [1, 1, 1, 1, 0, 0, 0, 0] or dilated or len(set(strides)) > 1:
        return None
    if not _floating(x):
        return None
    if x.ndim == 3:
        return kernel((1, *size), strides[0], ((0, 0), *pads), x[:, None])[:, 0]
    return kernel(tuple(size), strides[0], tuple(pads), x)


def _product(params: dict[str, Any], x: Any, matrix: Any) -> Array | None:
    """Return the product of rows and a matrix, whatever axes the rows' and the matrix's inner numbers lie on."""
    (inner, outer), batch = params["dimension_numbers"]
    m = len(inner)
    rows = tuple(inner) == tuple(range(x.ndim - m, x.ndim)) and tuple(outer) == tuple(range(m)) and batch == ((), ())
    wider = params["preferred_element_type"] not in (None, x.dtype)
    if not rows or wider or m in (0, x.ndim, matrix.ndim) or not _floating(x, matrix) or x.dtype != matrix.dtype:
        return None
    c = math.prod(matrix.shape[:m])
    found = products.product(x.reshape(*x.shape[: x.ndim - m], c), matrix.reshape(c, -1))
    return found.reshape(*x.shape[: x.ndim - m], *matrix.shape[m:])


def _floating(*arrays: Any) -> bool:
    return all(jnp.issubdtype(a.dtype, jnp.floating) for a in arrays)


_KERNELS: dict[Any, Callable[..., Array | None]] = {
    primitives.conv_general_dilated_p: _convolution,
    primitives.dot_general_p: _product,
    primitives.reduce_window_max_p: functools.partial(_pool, pooling.largest),
    primitives.reduce_window_sum_p: functools.partial(_pool, pooling.total),
}
