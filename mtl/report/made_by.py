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


def made_sentence(results: Iterable[Mapping[str, Any]]) -> str:
    """Return when and by what results were trained, in a sentence; of what differs the most frequent.

    >>> result = {"versions": {"python": "3.11.7", "jax": "0.10.2"}, "cpu": "AMD EPYC", "device": "cpu"}
    >>> result |= {"machine": "x86_64", "placement": "map", "finished": "2026-11-30T21:46:10+00:00"}
    >>> made_sentence([result])
    'Trained on 2026-11-30 on AMD EPYC (cpu), with Python 3.11.7, JAX 0.10.2.'
    """
    results = list(results)
    if not results:
        return ""
    by = made_by(results)
    days = sorted({str(r["finished"])[:10] for r in results})
    when = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
    names = {"python": "Python", "jax": "JAX", "flax": "Flax", "optax": "Optax", "mtl": "mtl"}
    versions = ", ".join(f"{name} {by[key][0]}" for key, name in names.items() if key in by)
    machine = by["processor"][0] or by["device"][0]
    on = f"{machine} ({results[0]['device']})" if by["processor"][0] else machine
    several = " and others" if any(len(by[k]) > 1 for k in ("processor", "device")) else ""
    return f"Trained {when} on {on}{several}, with {versions}."


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
