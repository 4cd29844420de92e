"""What a model makes of inputs of a shape, seen without computing anything."""

from __future__ import annotations

import dataclasses
import functools
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.interpreters.partial_eval import dce_jaxpr

from mtl import params as paths
from mtl.inputs import Shape, like
from mtl.models import watch
from mtl.models.model import Model, checked
from mtl.models.watch import watched

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """A model's parts for inputs of one shape.

    Attributes:
      params, state: shapes of its parameters and of its batch statistics.
      blocks: paths of the modules that the backbone holds and that have parameters, in order of depth: as they first
        run, or as a method ``blocks()`` of its own names them. "The last k blocks", gradual unfreezing and rates by
        depth go by them.
      values: of each layer of batch normalisation, by its path in the backbone, how many values of one row share a
        channel's statistics, at the least.
      dense: paths of the backbone's dense layers, in the order in which they run.
      features: shapes of what it makes of one input, of all tasks or of each.
    """

    params: PyTree
    state: PyTree
    blocks: tuple[str, ...]
    values: Mapping[str, int]
    dense: tuple[str, ...]
    features: Any


@functools.lru_cache(maxsize=64)
def anatomy(model: Model, shape: Shape) -> Anatomy:
    """Return the anatomy of a model; its backbone is looked at once, whatever heads it has.

    Args:
      model: the model.
      shape: what one input is.

    Raises:
      ValueError: for a model that does not take inputs of that shape; one of which a block or a parameter is empty, so
        that nothing of the inputs is left; one that normalises values one by one, which makes each of them zero; and
        one that draws at random in eval mode.

    >>> from mtl.models import build
    >>> from mtl.tasks import Task
    >>> cnn = build("cnn", {"channels": (4, 4), "norm": "batch"}, (Task("even", "binary"),))
    >>> dict(anatomy(cnn, (8, 8, 1)).values)
    {'block_0/norm': 64, 'block_1/norm': 16}
    """
    found, heads = _backbone(dataclasses.replace(model, tasks=(), losses=()), shape), {}
    for task in model.tasks:
        wide = checked(found.features, task, 1).shape[-1]
        if not wide:
            kernel = paths.join("heads", task.name, "kernel")
            raise ValueError(_empty(kernel, (0, task.outputs), shape))
        leaves = {"kernel": (wide, task.outputs), "bias": (task.outputs,)}
        heads[task.name] = {k: jax.ShapeDtypeStruct(of, jnp.float32) for k, of in leaves.items()}
    return dataclasses.replace(found, params={**found.params, "heads": heads})


def _empty(path: str, leaf: tuple[int, ...], shape: Shape) -> str:
    return f"model: parameter {path} is of shape {leaf} for inputs of shape {shape}: must not be empty"


@functools.lru_cache(maxsize=64)
def _backbone(model: Model, shape: Shape) -> Anatomy:
    """Return the anatomy of a model without heads."""
    inputs = f"inputs of shape {shape}"
    dense: list[str] = []
    ran: dict[str, None] = {}

    def see(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.module.path:
            ran[context.module.path[0]] = None
            if isinstance(context.module, nn.Dense):
                dense.append(paths.join("backbone", *context.module.path))
        return call(*args, **kwargs)

    try:
        with watched(shape) as values, nn.intercept_methods(see):
            params, state, features = jax.eval_shape(
                lambda: model.begin(jax.random.key(0), like(shape, 1, jnp.zeros)),
            )
            params = {"backbone": params, "heads": {}}
    except Exception as error:  # A backbone may be anybody's, and fail in any way.
        if isinstance(error, ValueError) and str(error).startswith("model"):
            raise
        raise ValueError(_explained(error, inputs)) from error
    for path, leaf in paths.flatten(params).items():
        if leaf.size == 0:
            raise ValueError(_empty(path, leaf.shape, shape))
    if not isinstance(model.backbone, nn.Module) and _draws(model, params["backbone"], state, shape):
        raise ValueError(
            "model: draws at random in eval mode: each of its layers must go by its mode (train() and eval())"
        )
    flat = paths.flatten(params)
    found = [path for path in dict.fromkeys(dense) if getattr(flat.get(f"{path}/kernel"), "ndim", 0) == 2]
    return Anatomy(params, state, _blocks(model, params["backbone"], ran), values, tuple(found), features)


def _draws(model: Model, params: PyTree, state: PyTree, shape: Shape) -> bool:
    """Return whether what a model gives in eval mode depends on the key that it is given."""
    x, key = like(shape, 1, jax.ShapeDtypeStruct), jax.eval_shape(lambda: jax.random.key(0))
    traced = jax.make_jaxpr(lambda key, p, s, x: model.run(False, p, s, x, key)[0])(key, params, state, x).jaxpr
    _, used = dce_jaxpr(traced, [True] * len(traced.outvars))
    return used[0]


def _blocks(model: Model, params: PyTree, ran: Iterable[str]) -> tuple[str, ...]:
    named = getattr(model.backbone, "blocks", None)
    if named is None:
        named = tuple(name for name in ran if name in params)
    return tuple(paths.join("backbone", *n.split("/")) for n in (named() if callable(named) else named))


def _explained(error: Exception, inputs: str) -> str:
    """Return one sentence for whatever a backbone raised, with the line of the file that it happened on."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in (__file__, watch.__file__)]
    own = [f for f in frames if "site-packages" not in f.filename] or frames
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"model: it does not take {inputs}: {type(error).__name__}: {first}{where}"


@functools.lru_cache(maxsize=256)
def untold(model: Model, shape: Shape, train: frozenset[str]) -> tuple[str, ...]:
    """Return the paths of statistics that a model replaces though their block is frozen: their layers cannot be told.

    Its trace is looked at; nothing is compiled.

    Args:
      model: the model.
      shape: what one input is.
      train: names of the blocks that train.

    Raises:
      ValueError: for a layer that draws at random though its block is frozen.
    """
    own = anatomy(model, shape)
    x, key = like(shape, 2, jax.ShapeDtypeStruct), jax.eval_shape(lambda: jax.random.key(0))
    params = own.params["backbone"]
    traced = jax.make_jaxpr(functools.partial(model.run, train))(params, own.state, x, key).jaxpr
    statistics = paths.flatten(own.state)
    first, outputs = len(jax.tree.leaves(params)), traced.outvars[len(traced.outvars) - len(statistics) :]
    found = []
    for i, path in enumerate(statistics):
        inner = path.partition("/")[2]
        frozen = inner.partition("/")[0] in params and not any(inner.startswith(f"{block}/") for block in train)
        if frozen and _origin(traced, outputs[i]) is not traced.invars[first + i]:
            found.append(inner)
    return tuple(found)


def _origin(jaxpr: Any, variable: Any) -> Any:
    """Return the variable that another one is handed on from, through calls of functions."""
    made: Any = next((e for e in jaxpr.eqns if any(variable is v for v in e.outvars)), None)
    inner = [] if made is None else list(jex.jaxprs_in_params(made.params))
    if len(inner) != 1 or len(inner[0].invars) != len(made.invars):
        return variable
    at = next(i for i, v in enumerate(made.outvars) if v is variable)
    source = _origin(inner[0], inner[0].outvars[at])
    outer = next((o for v, o in zip(inner[0].invars, made.invars, strict=True) if v is source), None)
    return variable if outer is None else _origin(jaxpr, outer)
