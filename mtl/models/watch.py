"""Watching a model being built: what is empty, and what is normalised by itself, is refused."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax

from mtl.inputs import Shape


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

    def see(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        path: tuple[str, ...] = context.module.path if context.method_name == "__call__" else ()
        if path and args:
            count = _together(context.module, args[0])
            if isinstance(context.module, nn.BatchNorm):
                name = "/".join(path)
                values[name] = min(count, values.get(name, count))
            elif count == 1:
                alone.append("/".join(path))
        found = call(*args, **kwargs)
        if len(path) == 1 and any(a.size == 0 for a in jax.tree.leaves(found) if hasattr(a, "size")):
            raise ValueError(
                f"model: {path[0]} leaves nothing of inputs of shape {shape}: take fewer blocks or larger inputs"
            )
        return found

    with nn.intercept_methods(see):
        yield values
    if alone:
        raise ValueError(
            f"model: {alone[0]} normalises each value by itself for inputs of shape {shape}, which makes all of them "
            "zero: take fewer blocks or groups, more channels, or larger inputs"
        )


def _together(module: nn.Module, x: Any) -> int:
    """Return how many values of a row a layer normalises together; 0 if it is no layer that does."""
    row = math.prod(x.shape[1:]) if hasattr(x, "shape") else 0
    if isinstance(module, nn.BatchNorm):
        return row // _size(x, module.axis)
    if isinstance(module, nn.GroupNorm):
        groups = module.num_groups or x.shape[-1] // (module.group_size or 1)
        return row // max(1, groups)
    if isinstance(module, nn.LayerNorm):
        return _size(x, module.reduction_axes)
    return row // x.shape[-1] if isinstance(module, nn.InstanceNorm) else 0


def _size(x: Any, axes: int | Sequence[int]) -> int:
    return math.prod(x.shape[a] for a in ((axes,) if isinstance(axes, int) else axes))
