"""A backbone and a head for each task, behind two pure functions: ``init`` and ``apply``."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Shaped

from mtl import cpu
from mtl.adapt import ADAPTERS
from mtl.inputs import count, structure
from mtl.losses import Loss
from mtl.models import linen
from mtl.models.features import Features, features_of
from mtl.models.watch import watched
from mtl.params import flatten, path_of
from mtl.tasks import Task

PyTree = Any
#: A batch of inputs: an array, or ``{leaf: array}``.
Inputs = Shaped[Array, "batch *shape"] | Mapping[str, Shaped[Array, "batch ..."]]


def _with_adapters(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    """Return what a layer gives with the adapters whose parameters lie below it (see ``mtl.adapt``)."""
    found = call(*args, **kwargs)
    if context.method_name != "__call__" or not isinstance(context.module, nn.Dense):
        return found
    for name, own in context.module.variables.get("params", {}).items():
        if name.startswith("+"):
            found = ADAPTERS[name[1:]]().applied(own, args[0], found)
    return found


@dataclasses.dataclass(frozen=True)
class Model:
    """A shared backbone with one linear head a task.

    ``params = {"backbone": …, "heads": {task: {"kernel", "bias"}}}``; ``state`` holds batch statistics.

    Heads begin at zero by default: the first predictions are then uniform whatever the trunk is, and at step 0 the
    trunk's gradient is exactly zero, so that a random head does not tear a pretrained trunk about before it has
    learned anything (as in VTAB, Zhai et al. 2019, arXiv:1910.04867, and BiT, Kolesnikov et al. 2020,
    arXiv:1912.11370).

    Attributes:
      backbone: a Linen module, or an ``NNX`` one, that makes features [batch, features] of inputs, or ``{task:
        features}`` for each task its own; [batch, *shape, features] for a dense task. Its *blocks* are the modules that
        it holds and that have parameters, in order of depth: see ``Anatomy``.
      tasks: the tasks that have a head.
      head_init: ``zeros`` or ``lecun_normal`` for the heads' kernels; biases begin at zero.
      dtype: what the backbone computes in, ``float32`` or ``bfloat16``. Parameters, their gradients, batch statistics
        and heads stay in float32 (mixed precision, Micikevicius et al. 2018, arXiv:1710.03740).
      losses: of tasks whose loss a config registers: what is compiled for one of that name is not for another.
      told: whether the backbone may know its tasks by name: under other names it would be another one.
    """

    backbone: Any
    tasks: tuple[Task, ...]
    head_init: Literal["zeros", "lecun_normal"] = "zeros"
    dtype: Literal["float32", "bfloat16"] = "float32"
    losses: tuple[Loss, ...] = ()
    told: bool = True

    def task(self, name: str) -> Task:
        """Return the task of that name."""
        return self._named[name]

    @functools.cached_property
    def _named(self) -> dict[str, Task]:
        return {task.name: task for task in self.tasks}

    def init(self, rng: Array, x: Inputs, streams: Integer[Array, " tasks"] | None = None) -> tuple[PyTree, PyTree]:
        """Return (params, state), for inputs like x.

        Each part draws from its own stream (the backbone's does not depend on the tasks, a head's only on its
        name), so regimes with different tasks begin from the same trunk.

        Args:
          rng: a key.
          x: inputs, of which shapes matter alone.
          streams: of each head, where it is data of what is compiled; by default those of the tasks' names.

        Raises:
          ValueError: for a backbone that leaves nothing of the inputs, or whose features are not those of its tasks.
        """
        params, state, features = self.begin(rng, x)
        heads = {}
        for i, task in enumerate(self.tasks):
            own = checked(features, task, count(x))
            head_key = jax.random.fold_in(rng, stream_of(task.name) if streams is None else streams[i])
            heads[task.name] = self._head(task).init(head_key, own)["params"]
        return {"backbone": params, "heads": heads}, state

    def begin(self, rng: Array, x: Inputs) -> tuple[PyTree, PyTree, Features]:
        """Return (the backbone's params, state, its features of x): ``init`` without heads."""
        key = jax.random.fold_in(rng, zlib.crc32(b"backbone"))
        with watched(structure(x)):
            params, state = self._init(key, x)
        return params, state, self._features(params, state, x, False, None)[0]

    def apply(
        self,
        params: PyTree,
        state: PyTree,
        x: Inputs,
        *,
        tasks: tuple[str, ...] | None = None,
        train: bool | frozenset[str] = False,
        rng: Array | None = None,
    ) -> tuple[Mapping[str, Float[Array, "batch ..."]], PyTree]:
        """Return ({task: outputs [batch, *task.shape, task.outputs]}, new state).

        Args:
          params: as ``init`` returns them; heads of tasks not asked for are not touched.
          state: batch statistics.
          x: inputs, [batch, …], or a dict of them.
          tasks: names of the heads to compute, all by default.
          train: whether it runs in train mode, with batch statistics of the batch and dropout; or the names of the
            blocks that do.
          rng: key for dropout; needed only where dropout is on.
        """
        features, state = self.trunk(params["backbone"], state, x, train=train, rng=rng)
        return self.heads(params, features, tasks), state

    def trunk(
        self,
        params: PyTree,
        state: PyTree,
        x: Inputs,
        *,
        train: bool | frozenset[str] = False,
        rng: Array | None = None,
    ) -> tuple[Features, PyTree]:
        """Return (features, new state): ``apply`` without heads, from the backbone's parameters."""
        return self._features(params, state, x, train, rng)

    def features(self, params: PyTree, state: PyTree, x: Inputs) -> Features:
        """Return the backbone's features in eval mode: what ``heads`` takes."""
        return self._features(params["backbone"], state, x, False, None)[0]

    def heads(
        self, params: PyTree, features: Features, tasks: tuple[str, ...] | None = None
    ) -> dict[str, Float[Array, "batch ..."]]:
        """Return {task: outputs} of the heads alone."""
        names = tuple(t.name for t in self.tasks) if tasks is None else tasks
        return {n: self.head(params["heads"][n], features_of(features, n)) for n in names}

    @staticmethod
    def head(params: PyTree, features: Float[Array, "batch *shape features"]) -> Float[Array, "batch *shape outputs"]:
        """Return a head's outputs: features · kernel + bias; of several whose columns lie side by side, all of them."""
        bias = params["bias"].reshape(*[1] * (features.ndim - 1), -1)
        return cpu.dense(features, jnp.asarray(params["kernel"])) + bias

    def _head(self, task: Task) -> nn.Dense:
        init = nn.initializers.zeros if self.head_init == "zeros" else nn.initializers.lecun_normal()
        return nn.Dense(task.outputs, kernel_init=init)

    def _init(self, rng: Array, x: Inputs) -> tuple[PyTree, PyTree]:
        """Return the backbone's (parameters, statistics)."""
        if not isinstance(self.backbone, nn.Module):
            return self.backbone.init(rng)
        variables = linen.init(self.backbone, rng, x)
        # A backbone may have no parameters: linear models, features computed before.
        return variables.pop("params", {}), variables

    def _features(
        self, params: PyTree, state: PyTree, x: Inputs, train: bool | frozenset[str], rng: Array | None
    ) -> tuple[Features, PyTree]:
        if self.dtype == "bfloat16":
            params, x = jax.tree.map(_rounded, (params, x))
        has_adapters = any("/+" in path for path in flatten(params))
        with nn.intercept_methods(_with_adapters) if has_adapters else contextlib.nullcontext():
            features, new = cpu.with_kernels(functools.partial(self.run, train))(params, state, x, rng)
        if isinstance(train, frozenset):
            new = _frozen_kept(train, params, state, new)
        # Heads and losses in full precision: they are a small part of the work and where rounding shows.
        if self.dtype == "bfloat16":
            features = jax.tree.map(lambda a: a.astype(jnp.float32), features)
        return features, new if train else state

    def run(
        self, train: bool | frozenset[str], params: PyTree, state: PyTree, x: Inputs, rng: Array | None
    ) -> tuple[Features, PyTree]:
        """Return the backbone's (features, statistics) as its library computes them, before what is frozen is kept.

        Args:
          train, params, state, x, rng: as ``trunk``.

        Raises:
          ValueError: for a backbone that keeps more variables with every call.
        """
        if isinstance(self.backbone, nn.Module):
            features, new = linen.apply(self.backbone, params, state, x, train, rng)
        else:
            features, new = self.backbone.apply(params, state, x, train, rng)
        if flatten(new).keys() != flatten(state).keys():
            raise ValueError("model: keeps other variables after a call than before it: must not sow what grows")
        return features, new


def checked(features: Any, task: Task, rows: int) -> Any:
    """Return a task's features of so many rows, or their shape.

    Raises:
      ValueError: if there are none, or they are of a shape that its head cannot read.
    """
    own = features_of(features, task.name)
    if own.shape[:-1] != (rows, *task.shape):
        whose = f" of {task.name}" if task.shape or isinstance(features, Mapping) else ""
        right = ", ".join(("batch", *map(str, task.shape), "features"))
        raise ValueError(f"model: features{whose} of {rows} input(s) are of shape {own.shape}: must be [{right}]")
    return own


def stream_of(task: str) -> int:
    """Return the number of the stream that a task's head draws from as it begins."""
    return zlib.crc32(f"heads/{task}".encode())


def _rounded(a: Any) -> Any:
    """Return numbers as bfloat16; ids stay integers."""
    return a.astype(jnp.bfloat16) if jnp.issubdtype(a.dtype, jnp.floating) else a


def _frozen_kept(train: frozenset[str], params: PyTree, old: PyTree, new: PyTree) -> PyTree:
    """Return new statistics where a block trains, and old ones where one that has parameters does not."""

    def kept(path: Any, was: Array, now: Array) -> Array:
        inner = path_of(path).partition("/")[2]
        trains = any(inner.startswith(f"{block}/") for block in train)
        return now if trains or inner.partition("/")[0] not in params else was

    return jax.tree_util.tree_map_with_path(kept, old, new)
