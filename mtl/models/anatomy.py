"""What a model makes of inputs of a shape, seen without computing anything."""

from __future__ import annotations

import dataclasses
import functools
import math
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtl.models.model import Model

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """A model's parts for inputs of one shape.

    Attributes:
      params, state: shapes of its parameters and of its batch statistics.
      values: of each block with batch normalisation, how many values of one row share a channel's statistics, at the
        least.
    """

    params: PyTree
    state: PyTree
    values: Mapping[str, int]


@functools.lru_cache(maxsize=64)
def anatomy(model: Model, shape: tuple[int, ...]) -> Anatomy:
    """Return the anatomy of a model.

    Args:
      model: the model.
      shape: of one input.

    Raises:
      ValueError: for a model that does not take inputs of that shape; one of which a block or a parameter is empty, so
        that nothing of the inputs is left; and one that normalises values one by one, which makes each of them zero.

    >>> from mtl.models import build
    >>> from mtl.tasks import Task
    >>> cnn = build("cnn", {"channels": (4, 4), "norm": "batch"}, (Task("even", "binary"),))
    >>> dict(anatomy(cnn, (8, 8, 1)).values)
    {'block_0': 64, 'block_1': 16}
    """
    values: dict[str, int] = {}
    alone: list[str] = []
    inputs = f"inputs of shape {shape}"

    def see(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        path: tuple[str, ...] = context.module.path if context.method_name == "__call__" else ()
        if path and args:
            count = _together(context.module, args[0])
            if isinstance(context.module, nn.BatchNorm):
                values[path[0]] = min(count, values.get(path[0], count))
            elif count == 1:
                alone.append("/".join(path))
        found = call(*args, **kwargs)
        if len(path) == 1 and any(a.size == 0 for a in jax.tree.leaves(found) if hasattr(a, "size")):
            raise ValueError(f"model: {path[0]} leaves nothing of {inputs}: take fewer blocks or larger inputs")
        return found

    try:
        with nn.intercept_methods(see):
            params, state = jax.eval_shape(
                lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape), jnp.float32)),
            )
    except Exception as error:  # A backbone may be anybody's, and fail in any way.
        if isinstance(error, ValueError) and str(error).startswith("model"):
            raise
        raise ValueError(_explained(error, inputs)) from error
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if leaf.size == 0:
            name = "/".join(str(k.key) for k in key_path)
            raise ValueError(f"model: parameter {name} is of shape {leaf.shape} for {inputs}: must not be empty")
    if alone:
        raise ValueError(
            f"model: {alone[0]} normalises each value by itself for {inputs}, which makes all of them zero: take fewer "
            "blocks or groups, more channels, or larger inputs"
        )
    return Anatomy(params, state, values)


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


def _explained(error: Exception, inputs: str) -> str:
    """Return one sentence for whatever a backbone raised, with the line of the file that it happened on."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    own = [f for f in frames if "site-packages" not in f.filename] or frames
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"model: it does not take {inputs}: {type(error).__name__}: {first}{where}"
