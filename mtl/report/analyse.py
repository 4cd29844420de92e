"""From a sweep's scores to all that is said about them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter

import numpy as np

from mtl.report import (
    bootstrap,
    caveats,
    contrasts,
    controls,
    decision,
    details,
    efficiency,
    hypothesis,
    settle,
    statistics,
    verdict,
)
from mtl.report.analysis import Analysis, Cell, Scores
from mtl.report.best import best_set

LEVEL = 0.95


def _check(scores: Scores) -> None:
    """Raises ValueError where the parts of ``scores`` do not fit together."""
    shape = (len(scores.regimes), len(scores.sizes), len(scores.replicates))
    if scores.values.ndim != 4 or scores.values.shape[:3] != shape:
        raise ValueError(
            f"scores.values: shape {scores.values.shape}; "
            f"regimes × sizes × replicates × examples would be {(*shape, 'I')}"
        )
    counts = dict.fromkeys(("missing", "failed", "unconverged", "overfitted"), shape[:2])
    for name, wanted in (counts | {"chosen": shape}).items():
        if (found := getattr(scores, name)) is not None and found.shape != wanted:
            raise ValueError(f"scores.{name}: shape {found.shape}; it should be {wanted}")
    if len(set(scores.regimes)) != shape[0]:
        raise ValueError(f"scores.regimes: {scores.regimes}; a name appears twice")
    if not all(low < high for low, high in zip(scores.sizes, scores.sizes[1:], strict=False)):
        raise ValueError(f"scores.sizes: {scores.sizes}; they must ascend")
    unknown = [name for name in scores.controls if name not in scores.regimes]
    if unknown:
        raise ValueError(f"scores.controls: {unknown[0]!r} is not a regime; there are {', '.join(scores.regimes)}")
    if scores.groups is not None and scores.groups.shape != scores.values.shape[3:]:
        raise ValueError(f"scores.groups: shape {scores.groups.shape}; it should be {scores.values.shape[3:]}")
    bootstrap.present_replicates(scores.values)


def claimed(gain: float, p_holm: float, p_margin_holm: float) -> str:
    """Return what a paired gain lets us claim, see ``Cell``."""
    if p_holm <= 1 - LEVEL:
        return "gain" if gain > 0 else "harm"
    return "equivalent" if p_margin_holm <= 1 - LEVEL else "inconclusive"


def _often(chosen: np.ndarray) -> float:
    """Return the value most often chosen (the smallest of equals)."""
    count = Counter(chosen[~np.isnan(chosen)].tolist())
    return float(min(count, key=lambda v: (-count[v], v), default=np.nan))


def analyse(
    scores: Scores, resamples: int = 4000, seed: int = 0, exclude: tuple[str, ...] = (), targets: int = 1
) -> Analysis:
    """Computes means, gains, claims, the best set, crossovers, what to do, the verdict and warnings of a sweep.

    Everything comes from one two-way bootstrap over replicates × test examples and its analytic standard
    error, where test examples come in groups over replicates × groups: intervals from
    `mtl.report.bootstrap.two_way_interval`; p values of the paired gains over the baseline from gain / se against
    Student's t with Satterthwaite's degrees of freedom, Holm over all regimes × sizes; equivalence by two one-sided
    tests, the larger p value of the two a cell, Holm over all regimes × sizes; the set that holds a column's best by
    Hsu's comparisons, 95 % a column; crossovers by whole curves; what would settle the rest by `mtl.report.settle`, and
    how many labels regimes are worth by `mtl.report.efficiency`. Gains of rows with a doubled budget are over the
    doubled baseline, and these rows do not compete for being best. Of a study that is looked at L times, as planned,
    each look spends an equal part of the level: corrected p values are multiplied by L, intervals of gains and the set
    of the best are those of 1 − 5 %/L, so that what is claimed at any of the looks holds together (Bonferroni).

    Args:
      scores: of one sweep.
      resamples: bootstrap resamples.
      seed: of the bootstrap.
      exclude: further regimes that do not compete for being best.
      targets: of how many the study's hypothesis is told, and tests are corrected in what would settle them; this one
        among them.

    Returns:
      The analysis. ``extra`` holds ``examples`` (test examples), ``family`` (tests that Holm corrected for)
      and ``draws_left_out`` (the most draws any mean, or gain over the baseline, had to leave out as they held none
      of its replicates). With one replicate, or where a regime and the baseline share fewer than two, intervals
      speak of the test examples only, p is NaN and the claim ``inconclusive``.

    Raises:
      ValueError: where parts of ``scores`` do not fit together, or ``exclude`` names no regime.

    Source: Owen, 2007, arXiv:0712.1111; Holm, 1979; Hsu, 1984; Schuirmann, 1987.

    >>> rng = np.random.default_rng(0)
    >>> right = rng.uniform(size=(2, 1, 20, 100)) < np.array([0.7, 0.9])[:, None, None, None]
    >>> none = np.zeros((2, 1), dtype=int)
    >>> result = analyse(
    ...     Scores(
    ...         "demo", "first", "Is it?", (), "accuracy", True, 100.0, ("scratch", "finetune"), (20.0,),
    ...         tuple(range(20)), right.astype(float), none, none, np.full((2, 1, 20), np.nan), "scratch",
    ...         0.02, {},
    ...     ),
    ...     resamples=500,
    ... )
    >>> result.cells["finetune"][20.0].claim
    'gain'
    """
    _check(scores)
    for name in exclude:
        if name not in scores.regimes:
            raise ValueError(f"exclude: {name!r} is not a regime; there are {', '.join(scores.regimes)}")
    sign = 1.0 if scores.higher_is_better else -1.0
    better, weights = bootstrap.by_group(scores.values if sign > 0 else -scores.values, scores.groups)
    draws = bootstrap.two_way_bootstrap(better, resamples, seed, weights)
    mean, se, df, replicates = statistics.two_way_error(better, weights)
    pairs = contrasts.compare(better, draws, seed, weights)
    for cell in zip(*np.nonzero(replicates), strict=True):  # The sums of groups are off by a last bit.
        mean[cell] = sign * scores.values[cell][pairs.present[cell]].mean()
    groups, columns = mean.shape
    # Of each regime that has one, the place of what its gain is over.
    baselines = [scores.rival(name) for name in scores.regimes]
    over = {
        g: scores.regimes.index(baselines[g])
        for g, name in enumerate(scores.regimes)
        if baselines[g] != name and baselines[g] in scores.regimes
    }
    p, p_margin = (np.full((groups, columns), np.nan) for _ in range(2))
    for (g, rival), s in itertools.product(over.items(), range(columns)):
        p[g, s] = pairs.p(g, rival, s)
        gain, error, freedom = (float(x[g, rival, s]) for x in (pairs.gain, pairs.se, pairs.df))
        p_margin[g, s] = statistics.tost(gain, error, freedom, scores.margin)
    p_holm, p_margin_holm = (statistics.holm(x, scores.looks) for x in (p, p_margin))
    level = 1 - (1 - LEVEL) / scores.looks

    out = tuple(scores.regimes.index(name) for name in (*exclude, *scores.doubled))
    competes = np.array([g not in out for g in range(groups)])
    left_out = int(np.isnan(draws[:, replicates > 0]).sum(axis=0).max(initial=0))
    cells: dict[str, dict[float, Cell]] = {name: {} for name in scores.regimes}
    for s, size in enumerate(scores.sizes):
        measured = replicates[:, s] > 0
        absent = tuple(np.flatnonzero(~measured | ~competes).tolist())
        inside = best_set(
            pairs.gain[:, :, s],
            pairs.se[:, :, s],
            pairs.df[:, :, s],
            pairs.replicates[:, :, s],
            functools.partial(pairs.directions, s=s),
            level,
            absent,
            pairs.means(s),
        )
        top = np.max(mean[measured & competes, s], initial=-np.inf)
        for g, name in enumerate(scores.regimes):
            # With two or three replicates the stretched interval would leave where the metric can be.
            ends = bootstrap.two_way_interval(draws[:, g, s], mean[g, s].item(), se[g, s].item(), df[g, s].item())
            low, high = (float(v) for v in np.clip(sorted(sign * e for e in ends), *scores.bounds))
            gain, gain_low, gain_high, claim = float("nan"), float("nan"), float("nan"), ""
            base = over.get(g)
            if base is not None and pairs.replicates[g, base, s] > 0:
                gain = float(pairs.gain[g, base, s])
                drawn = pairs.drawn(g, base, s)
                left_out = max(left_out, int(np.isnan(drawn).sum()))
                gain_low, gain_high = bootstrap.two_way_interval(
                    drawn, gain, float(pairs.se[g, base, s]), float(pairs.df[g, base, s]), level
                )
                claim = claimed(gain, float(p_holm[g, s]), float(p_margin_holm[g, s]))
            cells[name][size] = Cell(
                mean=float(sign * mean[g, s]),
                low=low,
                high=high,
                replicates=int(replicates[g, s]),
                missing=int(scores.missing[g, s]),
                failed=int(scores.failed[g, s]),
                gain=gain,
                gain_low=gain_low,
                gain_high=gain_high,
                p=float(p[g, s]),
                p_holm=float(p_holm[g, s]),
                p_margin=float(p_margin[g, s]),
                p_margin_holm=float(p_margin_holm[g, s]),
                claim=claim,
                best=bool(measured[g] and competes[g] and mean[g, s] == top),
                not_worse=bool(inside[g]),
                unconverged=0 if scores.unconverged is None else int(scores.unconverged[g, s]),
                overfitted=0 if scores.overfitted is None else int(scores.overfitted[g, s]),
                chosen=_often(scores.chosen[g, s]),
            )

    contenders = [name for name in scores.regimes if name not in scores.controls]
    crossings = contrasts.crossovers(pairs, scores.regimes, scores.sizes, contenders, scores.looks)
    joint, transfer = details.families(scores)
    rivals = contrasts.family(
        pairs, scores.regimes, scores.sizes, [(a, b) for a in joint for b in transfer], scores.looks
    )
    against = contrasts.family(
        pairs,
        scores.regimes,
        scores.sizes,
        [(r, name) for name in scores.controls if name != scores.baseline for r in controls.counterparts(scores, name)],
        scores.looks,
    )
    extra = {
        "examples": int(scores.values.shape[-1]),
        "family": int((~np.isnan(p)).sum()),
        "draws_left_out": left_out,
    }
    told = hypothesis.answers(
        scores, lambda a, b, s, level: (float(pairs.gain[a, b, s]), *pairs.interval(a, b, s, level)), targets
    )
    power = settle.powers(pairs, scores, over, p, p_margin, targets)
    worth, over_sizes = efficiency.worth(pairs, scores, over)
    result = Analysis(
        scores,
        cells,
        crossings,
        (),
        (),
        resamples,
        extra,
        against,
        told,
        power=power,
        worth=worth,
        over_sizes=over_sizes,
    )
    decisions = decision.decide(result)
    return dataclasses.replace(
        result,
        decisions=decisions,
        verdict=verdict.verdict(result, decisions, rivals),
        details=(*([hypothesis.sentence(scores, told)] if told else []), *details.details(result, rivals, against)),
        warnings=caveats.caveats(result),
    )
