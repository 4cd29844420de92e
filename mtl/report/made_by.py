"""By what results were trained: told where it differs within a table, and on the study's page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def made_by(results: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the versions, processors and devices that results were trained by, the most frequent first.

    >>> result = {"versions": {"jax": "0.10"}, "cpu": "fast", "device": "cpu", "machine": "x86_64", "placement": "map"}
    >>> made_by([result, result | {"cpu": "slow"}, result])
    {'jax': ['0.10'], 'processor': ['fast', 'slow'], 'device': ['cpu (x86_64), placement map']}
    """
    return {what: list(found) for what, found in _counted(results).items()}


def differing(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for everything in which the trainers of one table's results differ."""
    return [
        f"trained with several {what}: "
        + ", ".join(f"{value or 'unknown'} ({n:,} trial{'s' * (n > 1)})" for value, n in found.items())
        + "; equal configs then differ in bits."
        for what, found in _counted(results).items()
        if len(found) > 1
    ]


def _counted(results: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for r in results:
        said = {**r["versions"], "processor": r["cpu"]}
        said["device"] = f"{r['device']} ({r['machine']}), placement {r['placement']}"
        for what, value in said.items():
            counts.setdefault(what, Counter())[value] += 1
    return {what: dict(sorted(c.items(), key=lambda item: (-item[1], item[0]))) for what, c in counts.items()}
