"""Adapters: few parameters beside frozen dense layers, which train in their place and are merged in the end.

An adapter's parameters lie in the tree below the layer that they adapt, ``backbone/block_0/qkv/+lora/a``, so that
freezing, optimizers, packs and snapshots need to know nothing of them. A phase that has one begins: merge → fresh →
adapt → split; at its end kernels take up what was learned, and the model is one without adapters again.

An adapter is three pure functions (init, applied, merge). A config registers its own; floats are data.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl import params as paths
from mtl.options import check_free, stated, tried
from mtl.ranges import Range
from mtl.tasks import suggest

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter of dense layers y = x W + b.

    Attributes:
      init: ``init(key, W) -> {name: array}``, the parameters beside a kernel [in, out].
      applied: ``applied(own, x, y) -> y``, the layer's output with them. It depends on nothing else: what options say
        lies in ``own``, as a constant if it does not train.
      merge: ``merge(own, W) -> W``, the kernel that does the same without them.
      moves: names of those that train; others are constants.
    """

    init: Callable[[Array, Array], dict[str, Array]]
    applied: Callable[[Mapping[str, Array], Array, Array], Array]
    merge: Callable[[Mapping[str, Array], Array], Array]
    moves: tuple[str, ...]


def lora(rank: Annotated[int, Range(1)] = 8, alpha: Annotated[float | Array, Range(0, open_low=True)] = 8.0) -> Adapter:
    """Return low-rank adaptation: y + (α/r) (x A) B with A [in, r] and B [r, out].

    Hu et al. 2021 (arXiv:2106.09685). B begins at zero, so nothing changes at first; A is drawn uniformly from
    ±1/√in, as PyTorch's peft draws it (``kaiming_uniform`` with a = √5; Flax's ``nnx.LoRA`` draws from ±√(6/in)).

    Args:
      rank: r.
      alpha: α; half as much is another scale, not another rate, under Adam.
    """

    def init(key: Array, kernel: Float[Array, "c d"]) -> dict[str, Array]:
        bound = 1.0 / jnp.sqrt(kernel.shape[0])
        return {
            "a": jax.random.uniform(key, (kernel.shape[0], rank), minval=-bound, maxval=bound),
            "b": jnp.zeros((rank, kernel.shape[1])),
            "scale": jnp.asarray(alpha / rank, jnp.float32),
        }

    def applied(own: Mapping[str, Array], x: Array, y: Array) -> Array:
        return y + own["scale"].astype(y.dtype) * ((x @ own["a"].astype(x.dtype)) @ own["b"].astype(x.dtype))

    def merge(own: Mapping[str, Array], kernel: Array) -> Array:
        return kernel + own["scale"] * (own["a"] @ own["b"])

    return Adapter(init, applied, merge, ("a", "b"))


#: Adapters by name.
ADAPTERS: dict[str, Callable[..., Adapter]] = {"lora": lora}


def register(name: str) -> Callable[[Callable[..., Adapter]], Callable[..., Adapter]]:
    """Register what makes an adapter from its options under ``name``, from a config file or elsewhere.

    Raises:
      ValueError: if the name is taken by another one.
    """

    def decorate(make: Callable[..., Adapter]) -> Callable[..., Adapter]:
        check_free(ADAPTERS.get(name), make, f'adapter "{name}"')
        ADAPTERS[name] = make
        return make

    return decorate


def options_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return an adapter's options with every float that it takes, held against its annotations.

    Raises:
      ValueError: for a name or an option that does not exist, and a value that cannot be.

    >>> options_of("lora", {"rank": 4})
    {'rank': 4, 'alpha': 8.0}
    """
    if name not in ADAPTERS:
        raise ValueError(f'adapter "{name}": {suggest(name, ADAPTERS)}')
    make = ADAPTERS[name]
    if lacking := [k for k, p in inspect.signature(make).parameters.items() if p.default is p.empty]:
        raise ValueError(f'adapter "{name}": its option {lacking[0]} has no default: must have one')
    found = stated(make, options, "", f"adapter {name}")
    _check(name, make(**found), make())
    return found


def _check(name: str, adapter: Any, plain: Any) -> None:
    """Refuse what is no adapter, and one whose merged kernel does something else, tried out on a few numbers.

    Args:
      name: its name.
      adapter: as its options make it.
      plain: as it is without options, which is how it is applied.
    """
    if not isinstance(adapter, Adapter):
        raise ValueError(f'adapter "{name}": returned {adapter!r}: must return a mtl.adapt.Adapter')

    keys = jax.random.split(jax.random.key(0), 3)
    kernel, x = jax.random.normal(keys[0], (5, 3)), jax.random.normal(keys[1], (4, 5))
    with tried(f'adapter "{name}"'):
        own = adapter.init(keys[2], kernel)
        own = {k: a + 0.5 * jax.random.normal(keys[2], a.shape) if k in adapter.moves else a for k, a in own.items()}
        y, merged = plain.applied(own, x, x @ kernel), adapter.merge(own, kernel)
    if (y.shape, merged.shape) != ((4, 3), (5, 3)):
        raise ValueError(f'adapter "{name}": changes the shape of a layer\'s output or kernel: must keep both')
    if not jnp.allclose(y, x @ merged, rtol=1e-3, atol=1e-3):
        raise ValueError(f'adapter "{name}": its merged kernel gives other outputs than applying it: must do the same')
    if not adapter.moves or not set(adapter.moves) <= set(own):
        raise ValueError(f'adapter "{name}": moves = {adapter.moves}: must be some of {", ".join(own)}')


@dataclasses.dataclass(frozen=True)
class Adapting:
    """The static part of a phase's adapter: what a program is compiled with.

    Attributes:
      name: its name.
      make: what makes it.
      static: options that are no floats.
      floats: names of the options that are.
      layers: paths of the dense layers that it adapts.
    """

    name: str
    make: Callable[..., Adapter]
    static: tuple[tuple[str, Any], ...]
    floats: tuple[str, ...]
    layers: tuple[str, ...]

    def adapter(self, numbers: Mapping[str, Any]) -> Adapter:
        """Return the adapter with these numbers, which may be traced."""
        return self.make(**dict(self.static), **{k: numbers[k] for k in self.floats})


def adapting(name: str, options: Mapping[str, Any], layers: Collection[str]) -> tuple[Adapting, dict[str, float]]:
    """Return (the static part of an adapter of some dense layers, its numbers)."""
    numbers = {k: v for k, v in options.items() if isinstance(v, float)}
    static = tuple((k, v) for k, v in options.items() if k not in numbers)
    return Adapting(name, ADAPTERS[name], static, tuple(numbers), tuple(sorted(layers))), numbers


def adapted(a: Adapting, numbers: Mapping[str, Any], key: Array, params: PyTree) -> PyTree:
    """Return parameters with an adapter beside each of its layers' kernels.

    Args:
      a: the adapter.
      numbers: its numbers.
      key: of its own; each layer folds its path into it.
      params: all parameters.
    """
    flat, adapter = paths.flatten(params), a.adapter(numbers)
    for layer in a.layers:
        own = adapter.init(jax.random.fold_in(key, zlib.crc32(layer.encode())), jnp.asarray(flat[f"{layer}/kernel"]))
        flat |= {f"{layer}/+{a.name}/{leaf}": value for leaf, value in own.items()}
    return paths.unflatten(flat)


def merged(a: Adapting, numbers: Mapping[str, Any], params: PyTree) -> PyTree:
    """Return parameters without the adapter: kernels have taken up what it does."""
    flat, adapter = paths.flatten(params), a.adapter(numbers)
    for layer in a.layers:
        mark = f"{layer}/+{a.name}/"
        own = {p.removeprefix(mark): jnp.asarray(flat.pop(p)) for p in list(flat) if p.startswith(mark)}
        flat[f"{layer}/kernel"] = adapter.merge(own, jnp.asarray(flat[f"{layer}/kernel"]))
    return paths.unflatten(flat)


def pattern(name: str) -> str:
    """Return the pattern of the paths, below a block, of an adapter's parameters that train.

    >>> pattern("lora")
    '(?:.*/)?\\\\+lora/(?:a|b)'
    """
    return rf"(?:.*/)?\+{re.escape(name)}/(?:{'|'.join(map(re.escape, ADAPTERS[name]().moves))})"
