"""Optimizers: any of optax by its name, or a transformation that a config registers; every float of it is data.

The rate of a step is η · warm-up · schedule · its multiple for a parameter. It is handed to the transformation at each
step, inside of the trace, as is every float that the transformation takes: so a sweep over rates, momenta or decay
compiles nothing anew, and a head that rests does not stop the schedule.

>>> import jax.numpy as jnp
>>> o, numbers = optimizer({"name": "sgd", "options": {"momentum": 0.5}})
>>> params = {"w": jnp.ones(2)}
>>> state = init(o, numbers, params)
>>> for _ in range(2):
...     params, state = update(o, numbers, 0.1, {"w": jnp.ones(2)}, state, params)
>>> [round(float(w), 4) for w in params["w"]]  # 1 − 0.1 · 1 − 0.1 · (0.5 + 1)
[0.75, 0.75]
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array

from mtl.optim.rates import SCHEDULES, Number
from mtl.options import check_free, stated, tried
from mtl.ranges import Range
from mtl.tasks import suggest

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Transformation:
    """What an optimizer's name stands for.

    Attributes:
      make: from a learning rate, and options by name, to an ``optax.GradientTransformation``.
      elementwise: whether each element of an update depends on that element's gradients and values alone, and on the
        number of updates. The heads of all tasks are then one matrix, whatever their widths.
      evaluated: ``evaluated(state, params) -> params``, of an optimizer that trains other parameters than it evaluates.
    """

    make: Callable[..., optax.GradientTransformation]
    elementwise: bool = False
    evaluated: Callable[[PyTree, PyTree], PyTree] | None = None


#: Of optax's, those whose elements do not know of each other.
_ELEMENTWISE = {
    *("adabelief", "adadelta", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "ademamix", "amsgrad", "lion"),
    *("nadam", "nadamw", "optimistic_adam_v2", "optimistic_gradient_descent", "radam", "rmsprop", "rprop", "sgd"),
    *("sign_sgd", "signum", "yogi"),
}


def _of_optax() -> dict[str, Transformation]:
    found = {}
    for module in (optax.contrib, optax):  # What both have is the one that is no longer on trial.
        for name, make in vars(module).items():
            if name.startswith(("_", "scale_by_")) or not isinstance(make, types.FunctionType | functools.partial):
                continue
            if next(iter(inspect.signature(make).parameters), "") == "learning_rate":
                average = optax.contrib.schedule_free_eval_params if name.startswith("schedule_free_") else None
                found[name] = Transformation(make, name in _ELEMENTWISE, average)
    return found


#: Transformations by name: optax's, and a config's own.
OPTIMIZERS: dict[str, Transformation] = _of_optax()

#: The numbers that every optimizer has, whatever its options.
NUMBERS = ("weight_decay", "warmup", "clip", "ema")

#: What a transformation takes beside its options: of these the config has fields of its own.
NOT_OPTIONS = ("learning_rate", "weight_decay", "adam_weight_decay", "mask", "weight_decay_mask")
_MASKS = ("mask", "weight_decay_mask")

#: What numbers of this name can be, whoever takes them.
RANGES = {
    **dict.fromkeys(
        ("b1", "b2", "b3", "beta", "momentum", "decay", "rho", "adam_b1", "adam_b2"), Range(0, 1, open_high=True)
    ),
    **dict.fromkeys(("eps", "eps_root", "adam_eps_root", "initial_accumulator_value", "initial_scale"), Range(0)),
    "clipping_threshold": Range(0, open_low=True),
    "eta_minus": Range(0, 1, open_low=True, open_high=True),
    "eta_plus": Range(1, open_low=True),
}


def register(
    name: str, *, elementwise: bool = False, evaluated: Callable[[PyTree, PyTree], PyTree] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register an optimizer under ``name``, from a config file or elsewhere.

    Args:
      name: what ``config.optimizer.name`` says.
      elementwise, evaluated: see ``Transformation``; that the first is true is tried out.

    Raises:
      ValueError: if the name is taken by another one, or it is not elementwise and says so.

    >>> @register("sign_of_mean", elementwise=True)
    ... def sign_of_mean(learning_rate, b1: float = 0.9):
    ...     return optax.chain(optax.ema(b1), optax.scale_by_sign(), optax.scale_by_learning_rate(learning_rate))
    """

    def decorate(make: Callable[..., Any]) -> Callable[..., Any]:
        known = OPTIMIZERS.get(name)
        check_free(None if known is None else known.make, make, f'optimizer "{name}"')
        if elementwise and not _is_elementwise(make):
            raise ValueError(f'optimizer "{name}": elementwise = True: its updates are not those of each column alone')
        OPTIMIZERS[name] = Transformation(make, elementwise, evaluated)
        return make

    return decorate


def _is_elementwise(make: Callable[..., optax.GradientTransformation]) -> bool:
    """Return whether two updates of a matrix are those of its columns, one after the other."""
    key = jax.random.key(0)
    params, *grads = (jax.random.normal(k, (3, 4)) for k in jax.random.split(key, 3))

    def moved(params: Array, *grads: Array) -> Array:
        rule = make(0.1)
        state = rule.init(params)
        for gradient in grads:
            updates, state = rule.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    apart = jnp.stack([moved(params[:, i], *(g[:, i] for g in grads)) for i in range(4)], axis=1)
    return bool(jnp.allclose(moved(params, *grads), apart, rtol=1e-5, atol=1e-6))


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The static part of an optimizer: what a program is compiled with; its numbers enter as arrays.

    Attributes:
      rule: what its name stands for.
      static: options that are no floats.
      floats: names of the options that are.
      schedule: a name in ``rates.SCHEDULES``.
      clip: whether the norm of all trainable gradients is bounded.
      decay: ``all``, or ``kernels`` for no decay of parameters of less than two axes (biases, norms).
      ema: whether an average of the parameters is kept, which is what is evaluated.
      rates: whether parameters have rates of their own.
      per_task: whether the trunk has a state for each task's gradient.
    """

    rule: Transformation
    static: tuple[tuple[str, Any], ...] = ()
    floats: tuple[str, ...] = ()
    schedule: str = "constant"
    clip: bool = False
    decay: str = "all"
    ema: bool = False
    rates: bool = False
    per_task: bool = False

    @property
    def elementwise(self) -> bool:
        """Whether all heads can be one matrix."""
        return self.rule.elementwise

    def numbers(self, each: Number) -> dict[str, Any]:
        """Return a value for each of the numbers that it takes."""
        return {"options": dict.fromkeys(self.floats, each)} | dict.fromkeys(NUMBERS, each)


def options_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an optimizer, with every float that it takes, held against its annotations.

    Raises:
      ValueError: for a name or an option that does not exist, and a value that cannot be.

    >>> options_of("lion", {"b1": 0.95})
    {'b1': 0.95, 'b2': 0.99}
    >>> options_of("lion", {"b1": 1.5})
    Traceback (most recent call last):
    ...
    ValueError: optimizer.options.b1 = 1.5: must be a number in [0, 1)
    """
    if name not in OPTIMIZERS:
        raise ValueError(f'optimizer.name = "{name}": {suggest(name, OPTIMIZERS)}')
    return stated(OPTIMIZERS[name].make, options, "optimizer.options.", f"optimizer {name}", NOT_OPTIONS, RANGES)


def optimizer(section: Mapping[str, Any]) -> tuple[Optimizer, dict[str, Any]]:
    """Return the optimizer that a config's section describes, and its numbers; nothing is compiled.

    Args:
      section: ``name``, and what it does not leave to its default: ``options``, ``weight_decay`` (λ), ``decay``,
        ``schedule``, ``warmup`` (a share of the steps), ``clip`` (the largest norm), ``ema`` (the share of the average
        that stays), ``layer_decay`` and ``rates`` (see ``rates.multiples``).

    Raises:
      ValueError: for a name or an option that does not exist, and for an optimizer that cannot be used.
    """
    name = section["name"]
    options, rule = options_of(name, section.get("options", {})), OPTIMIZERS[name]
    floats = tuple(k for k, v in options.items() if isinstance(v, float))
    numbers: dict[str, Any] = {"options": {k: options[k] for k in floats}}
    numbers |= {k: float(section.get(k, 0.0)) for k in NUMBERS}
    found = Optimizer(
        rule,
        tuple((k, v) for k, v in options.items() if k not in floats),
        floats,
        section.get("schedule", "constant"),
        numbers["clip"] > 0,
        section.get("decay", "all"),
        numbers["ema"] > 0,
        section.get("layer_decay", 1.0) != 1.0 or bool(section.get("rates", {})),
        section.get("per_task", False),
    )
    if found.schedule not in SCHEDULES:
        raise ValueError(f'optimizer.schedule = "{found.schedule}": {suggest(found.schedule, SCHEDULES)}')
    if found.ema and rule.evaluated:
        raise ValueError(f"optimizer.ema = {numbers['ema']}: optimizer {name} has an average of its own: must be 0")
    if rule.evaluated and (found.rates or found.per_task or options.get("b1", 0.5) == 0.0):
        what = "rates of parameters" if found.rates else "per_task" if found.per_task else "b1 = 0"
        raise ValueError(f'optimizer.name = "{name}": averages what it trains by itself: must be without {what}')
    if found.decay != "all" and "weight_decay" in _taken(rule.make) and not _masks(rule.make):
        raise ValueError(f'optimizer.decay = "{found.decay}": optimizer {name} decays all that it moves: must be "all"')
    _try_out(name, found)
    return found, numbers


@functools.lru_cache(maxsize=64)
def _try_out(name: str, found: Optimizer) -> None:
    """Refuse an optimizer that needs more than gradients, parameters and numbers, or keeps what is no array."""
    number = jax.ShapeDtypeStruct((), jnp.float32)
    params = {"kernel": jax.ShapeDtypeStruct((4, 3), jnp.float32), "bias": jax.ShapeDtypeStruct((3,), jnp.float32)}

    def run(numbers: PyTree, eta: Array, params: PyTree) -> PyTree:
        return update(found, numbers, eta, params, init(found, numbers, params), params)

    # What optax will change, as it warns of, is no part of the answer.
    with tried(f'optimizer.name = "{name}"'), warnings.catch_warnings(action="ignore"):
        held = jax.eval_shape(run, found.numbers(number), number, params)
    if any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(held)):
        raise ValueError(f'optimizer.name = "{name}": cannot be used: it keeps a random key in its state')


@functools.lru_cache(maxsize=256)
def _taken(make: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(make).parameters)


def _masks(make: Callable[..., Any]) -> list[str]:
    return [name for name in _MASKS if name in _taken(make)]


def _transformation(o: Optimizer, numbers: Mapping[str, Any], eta: Number) -> optax.GradientTransformation:
    options = {**dict(o.static), **{k: numbers["options"][k] for k in o.floats}}
    if "weight_decay" in _taken(o.rule.make):
        # With a state for each task all of them would decay the same parameters.
        options["weight_decay"] = 0.0 if o.per_task else numbers["weight_decay"]
        if o.decay == "kernels":
            options |= dict.fromkeys(_masks(o.rule.make), _kernels)
        elif "adam_weight_decay" in _taken(o.rule.make):  # Of what is no matrix.
            options["adam_weight_decay"] = options["weight_decay"]
    return o.rule.make(eta, **options)


def _kernels(params: PyTree) -> PyTree:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def init(o: Optimizer, numbers: Mapping[str, Any], params: PyTree, tasks: int = 0) -> dict[str, PyTree]:
    """Return the optimizer's state for some parameters: of what moves only; with ``tasks``, one for each of so many."""
    rule = _transformation(o, numbers, 0.0)
    state = {"inner": jax.vmap(lambda _: rule.init(params))(jnp.arange(tasks)) if tasks else rule.init(params)}
    return state | ({"ema": jax.tree.map(jnp.array, params)} if o.ema else {})


def update(
    o: Optimizer,
    numbers: Mapping[str, Any],
    eta: Number,
    grads: PyTree,
    state: Mapping[str, PyTree],
    params: PyTree,
    rates: PyTree = None,
    shown: Array | None = None,
) -> tuple[PyTree, dict[str, PyTree]]:
    """Return (parameters, state) after one update.

    θ ← θ + r (u − ηλθ), where u is what the transformation makes of the gradients, and −ηλθ, the decoupled decay
    (Loshchilov & Hutter 2019, arXiv:1711.05101), is left to the transformation if that takes a decay itself.

    Args:
      o: the optimizer.
      numbers: its numbers.
      eta: the rate η of this step.
      grads: gradients.
      state: as ``init`` or an earlier update returned it.
      params: the parameters.
      rates: multiples r of the rate, a tree like the parameters; none for 1.
      shown: of a state for each task, which tasks have labels, [tasks]; gradients have the tasks as their first axis
        then, and u is the sum of what the transformation makes of each (AdaTask: Yang et al. 2023, arXiv:2211.15055).
    """
    rule = _transformation(o, numbers, eta)
    if shown is None:
        updates, inner = rule.update(grads, state["inner"], params)
    else:

        def of_task(shows: Array, gradient: PyTree, old: PyTree) -> tuple[PyTree, PyTree]:
            u, new = rule.update(gradient, old, params)
            kept = jax.tree.map(lambda a, b: jnp.where(shows, a, b), new, old)
            return jax.tree.map(lambda a: jnp.where(shows, a, 0.0), u), kept

        each, inner = jax.vmap(of_task)(shown, grads, state["inner"])
        updates = jax.tree.map(lambda a: a.sum(axis=0), each)
    if o.per_task or "weight_decay" not in _taken(o.rule.make):
        shrink = eta * numbers["weight_decay"]
        decays = _kernels(params) if o.decay == "kernels" else jax.tree.map(lambda _: True, params)
        updates = jax.tree.map(lambda u, p, d: u - shrink * p if d else u, updates, params, decays)
    if rates is not None:
        updates = jax.tree.map(lambda u, r: u * r, updates, rates)
    params = optax.apply_updates(params, updates)
    new = {"inner": inner}
    if o.ema:
        new["ema"] = jax.tree.map(lambda e, p: numbers["ema"] * e + (1 - numbers["ema"]) * p, state["ema"], params)
    return params, new


def evaluated(o: Optimizer, state: Mapping[str, PyTree], params: PyTree) -> PyTree:
    """Return the parameters that are evaluated and kept: those that move, or an average of them."""
    if o.ema:
        return state["ema"]
    return params if o.rule.evaluated is None else o.rule.evaluated(state["inner"], params)


def clipped(bound: Number, grads: PyTree, whole: PyTree = None) -> PyTree:
    """Return gradients of a global norm of at most ``bound``: g · min(1, bound / ‖g‖).

    Args:
      bound: the largest norm.
      grads: the gradients.
      whole: what the norm is of, if not of these: their sum over tasks.
    """
    norm = optax.tree.norm(grads if whole is None else whole)
    return jax.tree.map(lambda g: g * jnp.minimum(1.0, bound / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny)), grads)
