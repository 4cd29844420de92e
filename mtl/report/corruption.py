"""What was hidden from training or made wrong on purpose, in words, for the notes of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WAYS = {
    "at_random": "at random",
    "by_rank": "by their rank",
    "by_class": "by their class",
    "positive_only": "that are negative",
}


def corruption_notes(data: Mapping[str, Any]) -> list[str]:
    """Return sentences on labels hidden, skewed or made wrong; none if the resolved data section says nothing.

    >>> corruption_notes({"hide": "at_random", "hide_rates": {"prime": 0.9}})
    ['Training labels hidden at random: prime 0.9; n counts labels before that, and validation keeps all of its own.']
    """
    parts = []
    if data.get("hide") == "one_task_each":
        parts.append(f"hidden so that {data['hide_rate']:g} of the examples keep the label of one task")
    elif data.get("hide"):
        skew = f" (skew {data['hide_skew']:g})" if "hide_skew" in data else ""
        parts.append(f"hidden {_WAYS[data['hide']]}{skew}: {_rates(data['hide_rates'])}")
    if data.get("label_noise"):
        asymmetry = data.get("label_noise_asymmetry", 0.0)
        parts.append(
            f"made wrong: {_rates(data['label_noise'])}" + (f" (asymmetry {asymmetry:g})" if asymmetry else "")
        )
    if data.get("imbalance"):
        parts.append(f"hidden until the share of positives is: {_rates(data['imbalance'])}")
    if not parts:
        return []
    validation = "so is validation" if data.get("hide_in_validation") else "validation keeps all of its own"
    return [f"Training labels {'; '.join(parts)}; n counts labels before that, and {validation}."]


def _rates(rates: Mapping[str, Any]) -> str:
    def text(rate: Any) -> str:
        return f"{rate:g}" if isinstance(rate, (int, float)) else f"({', '.join(f'{r:g}' for r in rate)})"

    return ", ".join(f"{task} {text(rate)}" for task, rate in rates.items())
