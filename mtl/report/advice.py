"""What would settle a comparison, and what labels are worth, in plain words: two significant digits."""

from __future__ import annotations

import math

from mtl.report.estimates import Power, Worth
from mtl.report.power import MOST


def two_digits(x: float) -> str:
    """A number of two significant digits.

    >>> [two_digits(x) for x in (0.5234, 3.0, 14.4, 1249.0)]
    ['0.52', '3', '14', '1,200']
    """
    rounded = float(f"{x:.1e}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 else f"{rounded:g}"


def _about(count: float, one: str, many: str) -> str:
    """'about 14 more replicates'."""
    return f"about {two_digits(count)} more {one if count == 1 else many}"


def settles(power: Power | None, grouped: bool = False) -> str:
    """What would settle a comparison; nothing where it is settled.

    Args:
      power: nothing, if it has fewer than two replicates.
      grouped: whether test examples come in groups.

    Returns:
      A phrase, such as 'about 14 more replicates'.
    """
    if power is None:
        return "a second replicate, before anything can be said"
    if power.settled:
        return ""
    nouns = ("group of test examples", "groups of test examples") if grouped else ("test example", "test examples")
    replicates = power.replicates_needed - power.replicates
    examples = power.examples_needed - power.examples
    more = _about(examples, *nouns)
    if math.isfinite(replicates):
        told = _about(replicates, "replicate", "replicates")
        cheaper = power.examples_needed / power.examples < power.replicates_needed / power.replicates
        return f"{told}, or {more}" if cheaper else told
    if math.isfinite(examples):
        return f"more replicates do not help: the test set is too small ({more} would)"
    if math.isfinite(power.both_needed):
        times = two_digits(power.both_needed)
        return f"neither more replicates nor more {nouns[1]} alone: about {times} times as many of both"
    return f"nothing feasible: {MOST:,.0f} times the replicates and {nouns[1]} would not"


def labels_settle(power: Power, size: float, largest: float) -> str:
    """How many more labels would settle a comparison; nothing where it is settled or that is no question of labels.

    Args:
      power: of the comparison.
      size: the labels that it has.
      largest: the most labels that were measured.

    Returns:
      'about 300 more labels', or 'more than 500 labels', which is as far as was measured.
    """
    if power.settled or math.isnan(power.labels_needed):
        return ""
    if math.isinf(power.labels_needed):
        return f"more than {largest:,.0f} labels"
    return _about(max(float(round(power.labels_needed - size)), 1.0), "label", "labels")


def multiplier(worth: Worth) -> str:
    """How many times the labels a regime is worth.

    >>> multiplier(Worth(3.1, 3.1, 2.2, 4.4)), multiplier(Worth(5.0, float("inf"), 5.0, float("inf")))
    ('worth 3.1× the labels [2.2, 4.4]', 'worth more than 5× the labels')
    """
    if worth.least == worth.most:
        told = f"worth {two_digits(worth.least)}× the labels"
    elif worth.least > 0:
        told = f"worth more than {two_digits(worth.least)}× the labels"
    elif math.isfinite(worth.most):
        told = f"worth less than {two_digits(worth.most)}× the labels"
    else:
        return "worth in labels not bounded by these sizes"
    low, high = worth.low > 0, math.isfinite(worth.high)
    if low and high:
        return f"{told} [{two_digits(worth.low)}, {two_digits(worth.high)}]"
    if low and two_digits(worth.low) != two_digits(worth.least):
        return f"{told} [at least {two_digits(worth.low)}]"
    if high and two_digits(worth.high) != two_digits(worth.most):
        return f"{told} [at most {two_digits(worth.high)}]"
    return told if low or high else f"{told} [not bounded by these sizes]"


def labels_worth(worth: Worth, size: float) -> str:
    """How many labels the baseline would need to reach what a regime has: 'about 300 more labels'.

    ', or none' is put where the interval does not tell them from none.

    Args:
      worth: the multiplier at n.
      size: n.

    Returns:
      A phrase; nothing where the sizes measured do not bound it.
    """
    low, high = (size * (x - 1) for x in (worth.least, worth.most))
    count, none = float(round(low)), ", or none" if worth.low < 1 < worth.high else ""
    if worth.least == worth.most:
        if count == 0:
            return "as many labels"
        told = _about(count, "label", "labels") if count > 0 else f"about {two_digits(-count)} fewer labels"
        return told + none
    if worth.least > 0:
        return (f"more than {two_digits(low)} more labels" if count else "more labels") + none
    if math.isfinite(worth.most):
        return (f"more than {two_digits(-high)} fewer labels" if round(high) else "fewer labels") + none
    return ""
