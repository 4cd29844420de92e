"""Learning rates: that of a step, by warm-up and schedule, and what it is multiplied by for each parameter."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array

#: A number, of Python or traced.
Number = Any

#: Schedules by name: from the share of the steps after warm-up that are done, in [0, 1], to a multiple of the rate.
SCHEDULES: dict[str, Callable[[Array], Number]] = {
    "constant": optax.constant_schedule(1.0),
    "cosine": optax.cosine_decay_schedule(1.0, decay_steps=1),  # Loshchilov & Hutter 2017, arXiv:1608.03983.
    "linear": optax.linear_schedule(1.0, 0.0, transition_steps=1),
}


def rate(schedule: str, numbers: Mapping[str, Any], lr: Number, steps: Number, step: Array) -> Number:
    """Return the learning rate of a step: η · warm-up · schedule.

    Warm-up rises linearly over the first ``warmup`` share of the steps: the first step has some of it already.

    Args:
      schedule: a name in ``SCHEDULES``.
      numbers: the optimizer's, ``warmup`` among them.
      lr: η.
      steps: how many the phase has.
      step: the step's index.
    """
    begin = numbers["warmup"] * steps
    eta = lr * jnp.minimum(1.0, (step + 1) / jnp.maximum(1.0, begin))
    if schedule == "constant":
        return eta
    return eta * SCHEDULES[schedule](jnp.clip((step - begin) / jnp.maximum(1.0, steps - begin), 0.0, 1.0))


def multiples(
    section: Mapping[str, Any], trainable: Sequence[str], blocks: Sequence[str]
) -> tuple[tuple[float, ...], list[str]]:
    """Return (what each trainable parameter's rate is multiplied by, the patterns that matched none of them).

    ``layer_decay`` to the power of the number of blocks above a parameter's own, times the multiple of each pattern of
    ``rates`` that matches its whole path (Clark et al. 2020, arXiv:2003.10555, §3.1). Heads, and what is in no block,
    are above all.

    Args:
      section: the config's.
      trainable: whole paths.
      blocks: path prefixes of the backbone's blocks, in order of depth.

    >>> multiples({"layer_decay": 0.5, "rates": {"heads/.*": 10.0}}, ("backbone/a/w", "heads/t/w"), ("backbone/a",))
    ((0.5, 10.0), [])
    """
    decay, rates = section.get("layer_decay", 1.0), section.get("rates", {})

    def depth(path: str) -> int:
        return next((i for i, block in enumerate(blocks) if path.startswith(f"{block}/")), len(blocks))

    found = tuple(
        math.prod([decay ** (len(blocks) - depth(path)), *(r for p, r in rates.items() if re.fullmatch(p, path))])
        for path in trainable
    )
    return found, [p for p in rates if not any(re.fullmatch(p, path) for path in trainable)]
