"""Any Linen module as a backbone: how it is told to train, and frozen blocks in eval mode."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Collection, Iterator
from typing import Any

import flax.linen as nn
from flax.errors import InvalidRngError
from jaxtyping import Array

from mtl.models.features import Features

PyTree = Any

#: What modules call the argument (or the field) that says whether they train, and its value in eval mode.
EVAL = {
    **dict.fromkeys(("train", "training", "is_training", "update_stats"), False),
    **dict.fromkeys(("deterministic", "use_running_average"), True),
}

#: What is asked of a layer that does not rest.
TOLD = f"must be told whether it trains by an argument or a field of one of the names {', '.join(EVAL)}"


def init(module: nn.Module, rng: Array, x: PyTree) -> PyTree:
    """Return a module's variables, its parameters and its statistics, for inputs of that shape.

    Args:
      module: the module.
      rng: key.
      x: inputs.
    """
    told, arguments = _told(module, False)
    return dict(told.init({"params": rng, "dropout": rng}, x, **arguments))


def apply(
    module: nn.Module, params: PyTree, state: PyTree, x: PyTree, train: bool | frozenset[str], rng: Array | None
) -> tuple[Features, PyTree]:
    """Return (what a module makes of inputs, new statistics), some of its blocks in train mode.

    A module is told by the argument of its call, or else by its field, that has one of the names in ``EVAL``. What lies
    in a block that does not train is told the contrary: layers that take such an argument, BatchNorm and Dropout
    however they were made. A layer without parameters belongs to the block that ran before it, and rests before the
    first one.

    Args:
      module: the module.
      params: its parameters.
      state: its other variables, such as batch statistics.
      x: inputs.
      train: whether it trains; or the paths of the blocks that do.
      rng: key of what is random in train mode.
    """
    told, arguments = _told(module, bool(train))
    rngs = None if rng is None else {"dropout": rng, "params": rng}  # Streams of other names fall back to the latter.
    mutable = list(state) if train else []
    with _rest_frozen(train) if train and not isinstance(train, bool) else contextlib.nullcontext():
        found, new = told.apply({"params": params, **state}, x, **arguments, rngs=rngs, mutable=mutable)
    return found, {**state, **new}


def _told(module: nn.Module, train: bool) -> tuple[nn.Module, dict[str, Any]]:
    """Return (a module, the arguments of its call) that say whether it trains."""
    values: dict[str, Any] = {name: value != train for name, value in EVAL.items()}
    arguments = {name: values[name] for name in flags_of(type(module).__call__)}
    fields = {} if arguments else {name: values[name] for name in module.__dataclass_fields__ if name in values}
    return (module.clone(**fields) if fields else module), arguments


def flags_of(function: Any) -> list[str]:
    """Return the names of a function's arguments that say whether it trains."""
    return [name for name in inspect.signature(function).parameters if name in EVAL]


@contextlib.contextmanager
def _rest_frozen(train: Collection[str]) -> Iterator[None]:
    before = False  # Whether the block that ran last trains.

    def see(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal before
        path = "/".join(context.module.path)
        above = not path or any(block.startswith(f"{path}/") for block in train)
        if above or not (context.method_name == "__call__" or flags_of(context.orig_method)):
            return call(*args, **kwargs)
        if context.module.variables.get("params"):
            before = any(f"{path}/".startswith(f"{block}/") for block in train)
        return call(*args, **kwargs) if before else _in_eval_mode(call, args, kwargs, context)

    with nn.intercept_methods(see):
        yield


def _in_eval_mode(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    """Return what a layer gives when it is told not to train, whatever its caller said.

    Raises:
      ValueError: for one that draws at random all the same: it is given no key.
    """
    module: nn.Module = context.module
    scope: Any = module.scope
    positions = list(inspect.signature(getattr(type(module), context.method_name)).parameters)[1:]
    fields = [name for name in EVAL if getattr(module, name, None) is not None and name in module.__dataclass_fields__]
    own = {name: getattr(module, name) for name in fields}
    for name in set(positions) & set(EVAL):
        if name in fields:  # Such as BatchNorm's: either its field or its argument says it.
            kwargs = {k: v for k, v in kwargs.items() if k != name}
        elif (at := positions.index(name)) < len(args):
            args = (*args[:at], EVAL[name], *args[at + 1 :])
        else:  # By name, or by a default that may be to train.
            kwargs = {**kwargs, name: EVAL[name]}
    for name in fields:
        object.__setattr__(module, name, EVAL[name])  # A bound module is frozen; this one is of this call alone.
    keys, scope.rngs = scope.rngs, {}
    try:
        return call(*args, **kwargs)
    except InvalidRngError:
        raise ValueError(
            f"model: {'/'.join(module.path)} would draw at random while its block is frozen: its layer {TOLD}"
        ) from None
    finally:
        scope.rngs = keys
        for name, value in own.items():
            object.__setattr__(module, name, value)
