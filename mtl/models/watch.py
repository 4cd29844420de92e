"""Watching a model being built: what is empty, and what is normalised by itself, is refused."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax

from mtl.inputs import Shape

#: Called with (a layer's path in the backbone, the layer, its inputs, its call, which takes nothing more).
See = Callable[[tuple[str, ...], Any, Sequence[Any], Callable[[], Any]], Any]

#: Who sees the calls of NNX's layers. Linen's are seen by Flax's own interceptors.
seeing: contextvars.ContextVar[See | None] = contextvars.ContextVar("seeing", default=None)


@contextlib.contextmanager
def watched(shape: Shape) -> Iterator[dict[str, int]]:
    """Watch the layers that run inside, on inputs of a shape.

    Args:
      shape: what one input is.

    Yields:
      Of each layer of batch normalisation, by its path in the backbone, how many values of one row share a channel's
      statistics, at the least.

    Raises:
      ValueError: for a submodule of which nothing comes out, and for a layer that normalises values one by one, which
        makes each of them zero whatever the inputs are.
    """
    values: dict[str, int] = {}
    alone: list[str] = []

    def see(path: tuple[str, ...], layer: Any, inputs: Sequence[Any], call: Callable[[], Any]) -> Any:
        if inputs:
            count = _together(layer, inputs[0])
            if _kind(layer) == "BatchNorm":
                name = "/".join(path)
                values[name] = min(count, values.get(name, count))
            elif count == 1:
                alone.append("/".join(path))
        found = call()
        if len(path) == 1 and any(a.size == 0 for a in jax.tree.leaves(found) if hasattr(a, "size")):
            raise ValueError(
                f"model: {path[0]} leaves nothing of inputs of shape {shape}: take fewer blocks or larger inputs"
            )
        return found

    def see_linen(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module, path = context.module, context.module.path
        if not path or context.method_name != "__call__":
            return call(*args, **kwargs)
        return see(path, module, args, lambda: call(*args, **kwargs))

    token = seeing.set(see)
    try:
        with nn.intercept_methods(see_linen):
            yield values
    finally:
        seeing.reset(token)
    if alone:
        raise ValueError(
            f"model: {alone[0]} normalises each value by itself for inputs of shape {shape}, which makes all of them "
            "zero: take fewer blocks or groups, more channels, or larger inputs"
        )


def _kind(layer: Any) -> str:
    """Return the name of the class of Flax's that a layer is of: Linen and NNX have the same."""
    return next((c.__name__ for c in type(layer).__mro__ if c.__module__.startswith("flax.")), "")


def _together(layer: Any, x: Any) -> int:
    """Return how many values of a row a layer normalises together; 0 if it is no layer that does."""
    row, kind = math.prod(x.shape[1:]) if hasattr(x, "shape") else 0, _kind(layer)
    if kind == "BatchNorm":
        return row // _size(x, layer.axis)
    if kind == "GroupNorm":
        groups = layer.num_groups or x.shape[-1] // (layer.group_size or 1)
        return row // max(1, groups)
    if kind == "LayerNorm":
        return _size(x, layer.reduction_axes)
    return row // x.shape[-1] if kind == "InstanceNorm" else 0


def _size(x: Any, axes: int | Sequence[int]) -> int:
    return math.prod(x.shape[a] for a in ((axes,) if isinstance(axes, int) else axes))
