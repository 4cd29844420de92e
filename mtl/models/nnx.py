"""Any NNX module as a backbone: its parameters, statistics and random keys as pytrees of pure functions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.nnx as nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from mtl import params as paths
from mtl.models.features import Features
from mtl.models.linen import EVAL, flags_of
from mtl.models.watch import See, seeing

PyTree = Any


@dataclasses.dataclass(frozen=True)
class NNX:
    """A backbone that a factory of NNX modules makes.

    Attributes:
      factory: a function, or a class, that takes ``rngs`` beside its options.
      options: of the model, by name; pairs, so that equal backbones are equal.
    """

    factory: Callable[..., nnx.Module]
    options: tuple[tuple[str, Any], ...] = ()

    def init(self, rng: Array) -> tuple[PyTree, PyTree]:
        """Return (parameters, statistics)."""
        _, parameters, _, others = self._split(self._make(rng))
        return _tree(parameters), _statistics(others)

    def apply(
        self, params: PyTree, state: PyTree, x: PyTree, train: bool | frozenset[str], rng: Array | None
    ) -> tuple[Features, PyTree]:
        """Return (what the module makes of inputs, new statistics).

        Args:
          params, state: as ``init`` returns them.
          x: inputs.
          train: whether it trains; or the paths of the blocks that do. A layer without parameters belongs to the block
            before it, and rests before the first one.
          rng: key of what is random in train mode.

        Raises:
          ValueError: for a module whose call is told whether it trains, where only some blocks are to.
        """
        graph, own, keys, others = self._template
        key = jax.random.key(0) if rng is None else rng
        module = nnx.merge(graph, _filled(own, params), _keyed(keys, key), _filled(others, state.get(_STATISTICS, {})))
        module.eval()
        told = flags_of(type(module).__call__)
        if isinstance(train, frozenset) and train and told:
            raise ValueError(
                f"model: its call takes {told[0]}, so that no block of it can be frozen by itself: must go by the "
                "modes of its layers (train() and eval())"
            )
        if train is True:
            module.train()
        elif train:
            parts, before = dict(_parts(module)), False
            for path in self._order:
                before = path in train if path in self.blocks else before
                if before:
                    parts[path].train()
        if (see := seeing.get()) is not None:
            _show(module, see)
        found = module(x, **{name: EVAL[name] != bool(train) for name in told})
        return found, _statistics(self._split(module)[3])

    @functools.cached_property
    def blocks(self) -> tuple[str, ...]:
        """Paths of the modules with parameters that it holds, and of the members of its lists, in its order."""
        held = _tree(self._template[1])
        return tuple(path for path in self._order if paths.flatten(_below(held, path)))

    @functools.cached_property
    def _order(self) -> tuple[str, ...]:
        """Paths of its modules in the order in which it was given them; that of its pytree is by their names."""
        order: list[str] = []
        jax.eval_shape(lambda: order.extend(path for path, _ in _parts(self._make(jax.random.key(0)))))
        return tuple(order)

    @functools.cached_property
    def _template(self) -> Any:
        return self._split(nnx.eval_shape(lambda: self._make(jax.random.key(0))))

    def _make(self, rng: Array) -> nnx.Module:
        return self.factory(**dict(self.options), rngs=nnx.Rngs(rng))

    @staticmethod
    def _split(module: nnx.Module) -> Any:
        return nnx.split(module, nnx.Param, nnx.RngState, ...)


def _parts(module: nnx.Module) -> list[tuple[str, nnx.Module]]:
    """Return (path, module) of each module that a module holds."""
    found: list[tuple[str, nnx.Module]] = []  # What has two names goes by the first.
    for name, value in vars(module).items():
        if isinstance(value, nnx.List):
            found += [(f"{name}/{i}", v) for i, v in enumerate(value) if isinstance(v, nnx.Module)]
        elif isinstance(value, nnx.Module):
            found.append((name, value))
    return [(path, part) for i, (path, part) in enumerate(found) if all(part is not p for _, p in found[:i])]


def _show(module: nnx.Module, see: See) -> None:
    """Have every layer of a module, which is of one call alone, called by way of ``see``."""

    def shown(path: tuple[str, ...], own: type) -> type:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            return see(path, self, args, lambda: own.__call__(self, *args, **kwargs))

        return type(own.__name__, (own,), {"__call__": call})

    for block, part in _parts(module):
        for inner, layer in nnx.iter_modules(part):
            object.__setattr__(layer, "__class__", shown((block, *map(str, inner)), type(layer)))


def _below(tree: PyTree, path: str) -> PyTree:
    for name in path.split("/"):
        tree = tree.get(name, {})
    return tree


def _tree(state: Any) -> PyTree:
    """Return variables as nested dicts of arrays; their names are texts, of a list's members too."""
    tree: dict[str, Any] = {}
    for path, variable in nnx.to_flat_state(state):
        *outer, last = map(str, path)
        inner = tree
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = variable.get_value()
    return tree


#: The collection that Linen keeps what is neither a parameter nor random in.
_STATISTICS = "batch_stats"


def _statistics(others: Any) -> PyTree:
    tree = _tree(others)
    return {_STATISTICS: tree} if tree else {}


def _filled(state: Any, tree: PyTree) -> Any:
    """Return variables with the arrays of nested dicts."""
    flat = nnx.to_flat_state(state)
    return nnx.from_flat_state([(path, v.replace(_below(tree, "/".join(map(str, path))))) for path, v in flat])


def _keyed(state: Any, key: Array) -> Any:
    """Return the state of random streams that begin with a key, each with one of its own."""
    flat = nnx.to_flat_state(state)
    fresh = [
        (path, v.replace(jax.random.fold_in(key, i) if isinstance(v, nnx.RngKey) else jnp.zeros((), jnp.uint32)))
        for i, (path, v) in enumerate(flat)
    ]
    return nnx.from_flat_state(fresh)
