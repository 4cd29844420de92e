"""Balancers: what the gradients of several tasks' losses come to for the trunk that they share.

The loss of a phase is Σ_k c_k S_k, with S_k the sum of task k's losses in a batch; its gradient for the trunk is the
sum of the rows g_k = ∂(c_k S_k)/∂θ. A balancer gives each a weight, or another direction in place of the sum. Each head
keeps its own task's gradient, unweighted, whatever the balancer (so do PCGrad and CAGrad in their authors' code; others
weight heads too).

A balancer is a pair (init, update) of pure functions, and what it ``needs`` of a step. A config registers its own:

>>> @register("norms")
... def normalized(power: float = 1.0):
...     def update(state, seen):  # Each row to the length of 1: the direction of NTKMTL (2025, arXiv:2510.18258).
...         return jnp.where(seen.active, jnp.diag(seen.gramian) ** (-power / 2), 0.0), state
...     return Balancer(lambda tasks: (), update, needs=("gramian",))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl.options import check_free, stated, tried
from mtl.ranges import Range
from mtl.tasks import suggest

PyTree = Any

#: What a balancer may ask of a step beside its own state, and the tasks that have labels.
NEEDS = ("previous", "losses", "features", "gramian", "jacobian", "validation", "direction")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Seen:
    """What a balancer sees of a step; ``None`` for what it does not need. Tasks are in the order of their names.

    Attributes:
      active: whether each task has a label in the batch, [tasks]. One that has none has a row of zeros.
      key: of its own, for what is random.
      previous: (losses, active) of the step before, at the weights before its update; none was active before the first.
      losses: mean loss of each task's labels in this batch, [tasks]; 0 where there are none. Costs a second forward
        pass where a batch is cut into parts.
      features: the Gramian of the gradients at the features that heads read, [tasks, tasks].
      gramian: of the rows, g_j · g_k, [tasks, tasks].
      jacobian: the rows, [tasks, parameters of the trunk that move].
      others: rows of further independent batches of the same kind, [batches, tasks, parameters].
      validation: rows of a batch of validation labels, [tasks, parameters].
    """

    active: Bool[Array, " tasks"]
    key: PyTree
    previous: PyTree = None
    losses: PyTree = None
    features: PyTree = None
    gramian: PyTree = None
    jacobian: PyTree = None
    others: PyTree = None
    validation: PyTree = None


@dataclasses.dataclass(frozen=True)
class Balancer:
    """A balancer.

    Attributes:
      init: from the number of tasks to the first state.
      update: from (state, ``Seen``) to (weights [tasks], state), or to (direction [parameters], state).
      needs: names in ``NEEDS``; with ``direction``, it gives the trunk's whole gradient instead of weights.
      batches: how many further independent batches it needs.
    """

    init: Callable[[int], PyTree]
    update: Callable[[PyTree, Seen], tuple[Array, PyTree]]
    needs: tuple[str, ...] = ()
    batches: int = 0


def uncertainty(lr: Annotated[float | Array, Range(0, open_low=True)] = 0.025) -> Balancer:
    """Return uncertainty weighting: weights e^(−s), where s descends on Σ ½ (e^(−s_k) L_k + s_k), once a step.

    Kendall, Gal & Cipolla 2018 (arXiv:1705.07115). It begins at s = 0, equal weights. The losses are those of the step
    before, so that it costs nothing; s of a task that had no label stays.

    Args:
      lr: the rate of s.
    """

    def update(s: Float[Array, " tasks"], seen: Seen) -> tuple[Array, Array]:
        losses, active = seen.previous
        s = s - jnp.where(active, lr * 0.5 * (1.0 - jnp.exp(-s) * losses), 0.0)
        return jnp.exp(-s), s

    return Balancer(jnp.zeros, update, needs=("previous",))


#: Balancers by name; ``equal`` stands for none, the plain sum.
BALANCERS: dict[str, Callable[..., Balancer]] = {"uncertainty": uncertainty}


def register(name: str) -> Callable[[Callable[..., Balancer]], Callable[..., Balancer]]:
    """Register what makes a balancer from its options under ``name``, from a config file or elsewhere.

    Options that are floats are data of the compiled program; they may be traced numbers when a balancer is made.

    Raises:
      ValueError: if the name is taken by another one.
    """

    def decorate(make: Callable[..., Balancer]) -> Callable[..., Balancer]:
        check_free(uncertainty if name == "equal" else BALANCERS.get(name), make, f'balancer "{name}"')
        BALANCERS[name] = make
        return make

    return decorate


def options_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a balancer, with every float that it takes, held against its annotations.

    Raises:
      ValueError: for a name or an option that does not exist, a value that cannot be, and what makes no balancer.

    >>> options_of("uncertainty", {})
    {'lr': 0.025}
    >>> options_of("uncertainty", {"lr": "fast"})
    Traceback (most recent call last):
    ...
    ValueError: balancer.options.lr = 'fast': must be a finite number
    """
    if name == "equal" and not options:
        return {}
    if name not in BALANCERS:
        raise ValueError(f'balancer.name = "{name}": {suggest(name, ["equal", *BALANCERS])}')
    make = BALANCERS[name]
    found = stated(make, options, "balancer.options.", f"balancer {name}")
    _check(name, make(**found))
    return found


def _check(name: str, balancer: Any) -> None:
    """Refuse what is no balancer, and one that does not give what it must, tried out on shapes alone."""
    if not isinstance(balancer, Balancer):
        raise ValueError(f'balancer "{name}": returned {balancer!r}: must return a mtl.balance.Balancer')
    for need in balancer.needs:
        if need not in NEEDS:
            raise ValueError(f'balancer "{name}": needs "{need}": {suggest(need, NEEDS)}')
    k, p, needs = 3, 7, balancer.needs

    def run(key: Array) -> tuple[PyTree, Array, PyTree]:
        each, rows, gramian = jnp.ones(k), jnp.ones((k, p)), jnp.ones((k, k))
        has_rows = bool({"gramian", "jacobian", "direction"} & set(needs))
        seen = Seen(
            active=each > 0,
            key=key,
            previous=(each, each > 0) if "previous" in needs else None,
            losses=each if {"losses", "features"} & set(needs) else None,
            features=gramian if {"losses", "features"} & set(needs) else None,
            gramian=gramian if has_rows else None,
            jacobian=rows if has_rows else None,
            others=jnp.ones((balancer.batches, k, p)) if balancer.batches else None,
            validation=rows if "validation" in needs else None,
        )
        state = balancer.init(k)
        return state, *balancer.update(state, seen)

    with tried(f'balancer "{name}"'):
        state, found, new = jax.eval_shape(run, jax.eval_shape(lambda: jax.random.key(0)))
    wanted, what = ((p,), "[parameters]") if "direction" in needs else ((k,), "[tasks]")
    if found.shape != wanted:
        raise ValueError(f'balancer "{name}": gives an array of shape {found.shape} for {k} tasks: must be {what}')
    if jax.tree.map(lambda a: (a.shape, a.dtype), state) != jax.tree.map(lambda a: (a.shape, a.dtype), new):
        raise ValueError(f'balancer "{name}": its state changes shape or type in a step: must stay as init gives it')


@dataclasses.dataclass(frozen=True)
class Balancing:
    """The static part of a phase's balancer: what a program is compiled with; its floats enter as arrays.

    Attributes:
      make: what makes it.
      static: options that are no floats.
      floats: names of the options that are.
      needs, batches: as the balancer has them.
    """

    make: Callable[..., Balancer]
    static: tuple[tuple[str, Any], ...]
    floats: tuple[str, ...]
    needs: tuple[str, ...]
    batches: int

    @property
    def rows(self) -> bool:
        """Whether it needs the gradient of each task."""
        return bool({"gramian", "jacobian", "direction"} & set(self.needs))

    def balancer(self, numbers: Mapping[str, Any]) -> Balancer:
        """Return the balancer with these numbers, which may be traced."""
        return self.make(**dict(self.static), **{k: numbers[k] for k in self.floats})


def balancing(name: str, options: Mapping[str, Any]) -> tuple[Balancing | None, dict[str, float]]:
    """Return (the static part of a balancer, its numbers); none for equal weights."""
    if name == "equal":
        return None, {}
    numbers = {k: v for k, v in options.items() if isinstance(v, float)}
    static = tuple((k, v) for k, v in options.items() if k not in numbers)
    made = BALANCERS[name](**options)
    return Balancing(BALANCERS[name], static, tuple(numbers), made.needs, made.batches), numbers
