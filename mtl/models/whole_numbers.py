"""Whether a model takes floats as whole numbers: ids that are not declared, which no scaling or rounding may change."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from mtl.inputs import Shape, like
from mtl.models.anatomy import anatomy
from mtl.models.model import Model

#: What mixes inputs: behind them a number is no input any more.
_MIXING = ("dot_general", "conv_general_dilated", "reduce_sum", "reduce_max", "reduce_min", "argmax", "argmin")


def whole_numbers(model: Model, shape: Shape) -> bool:
    """Return whether a model's backbone turns floats into integers before it mixes them, as an embedding does.

    Or compares them with many numbers at once, as a one-hot code does. Of inputs that are ids, nothing is asked: they
    come as integers.

    Its trace is looked at; nothing is compiled.

    Args:
      model: the model.
      shape: what one input is.

    >>> from mtl.models import build
    >>> from mtl.tasks import Task
    >>> whole_numbers(build("mlp", {}, (Task("even", "binary"),)), (8,))
    False
    """
    return _whole_numbers(dataclasses.replace(model, tasks=(), losses=()), shape)


@functools.lru_cache(maxsize=64)
def _whole_numbers(model: Model, shape: Shape) -> bool:
    """Return it of a model without heads."""
    x, own = like(shape, 1, jax.ShapeDtypeStruct), anatomy(model, shape)
    traced = jax.make_jaxpr(lambda x, params, state: model.features(params, state, x))(x, own.params, own.state)
    inputs = traced.jaxpr.invars[: len(jax.tree.leaves(x))]
    return _converted(traced.jaxpr, {v for v in inputs if jnp.issubdtype(v.aval.dtype, jnp.floating)})[0]


def _converted(jaxpr: Any, inputs: set[Any]) -> tuple[bool, set[Any]]:
    """Return (whether any of some variables becomes an integer, all variables that are made of them alone)."""
    inputs = set(inputs)
    for equation in jaxpr.eqns:
        taken = [v for v in equation.invars if not isinstance(v, jex.Literal) and v in inputs]
        if not taken or equation.primitive.name in _MIXING:
            continue
        whole = jnp.issubdtype(equation.params.get("new_dtype", jnp.float32), jnp.integer)
        if equation.primitive.name == "convert_element_type" and whole:
            return True, inputs
        others = [v for v in equation.invars if v not in taken] if len(taken) < len(equation.invars) else []
        if equation.primitive.name in ("eq", "ne") and any(v.aval.size > 1 for v in others):
            return True, inputs
        made = set(equation.outvars)
        for inner in jex.jaxprs_in_params(equation.params):
            given = dict(zip(reversed(inner.invars), reversed(equation.invars), strict=False))
            found, alone = _converted(inner, {v for v, outer in given.items() if any(outer is t for t in taken)})
            if found:
                return True, inputs
            pairs = zip(reversed(inner.outvars), reversed(equation.outvars), strict=False)
            made &= {outer for own, outer in pairs if not isinstance(own, jex.Literal) and own in alone}
        inputs |= made
    return False, inputs
