"""What would settle each comparison of a study with its baseline: replicates, test examples, labels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from mtl.report import power, statistics
from mtl.report.analysis import Scores, Sizes
from mtl.report.contrasts import Pairs
from mtl.report.estimates import Power

_LEVEL = 0.05
_STEPS = 32  # Of the way between two sizes.


def powers(
    pairs: Pairs,
    scores: Scores,
    over: Mapping[int, int],
    p: Float[np.ndarray, "G S"],
    p_margin: Float[np.ndarray, "G S"],
    targets: int = 1,
) -> dict[str, dict[float, Power]]:
    """Return the power of each regime's comparison with its baseline, see `mtl.report.analysis.Power`.

    Each test is taken at the level that Holm's step-down asks of it while the others stay as they are: with m tests of
    which k others are shown, 5 %/(m − k); before anything is shown that is 5 %/m. Of several targets the others' tests
    count as not shown: `claimed` puts in what their correction together claims.

    The labels needed: the gain, and what of it is detectable or equivalent, are linear in log n between the sizes, and
    sizes at which the study made its claim count. Beyond the sizes nothing is said. The interval is that of whole
    curves of the gain (the same replicates and test examples at all sizes), their spread set to the standard error.

    Args:
      pairs: of `mtl.report.contrasts.compare`.
      scores: what they are of.
      over: of each regime that has one, the place of what its gain is over.
      p, p_margin: p values of the gain and of equivalence, NaN where there was no test.
      targets: of how many targets the tests are corrected for, this one among them.
    """
    (holm, level), (holm_margin, margin_level) = (_asked(tests, targets, scores.looks) for tests in (p, p_margin))
    keys = [(g, s) for g in over for s in range(len(scores.sizes)) if pairs.replicates[g, over[g], s] > 1]
    at = tuple(np.array(keys, dtype=np.int64).reshape(-1, 2).T)
    rival = np.array([over[g] for g, _ in keys], dtype=np.int64)
    gain, se, replicates = (x[at[0], rival, at[1]] for x in (pairs.gain, pairs.se, pairs.replicates.astype(np.float64)))
    examples = np.full(len(keys), float(len(pairs.sizes)))
    parts = power.Components(
        *np.array([power.components(_differences(pairs, g, over[g], s)) for g, s in keys]).reshape(-1, 4).T
    )
    asked = power.Asked(level[at], margin_level[at], scores.margin)
    told, close = holm[at] <= _LEVEL, holm_margin[at] <= _LEVEL
    settled = told | close
    own = power.design(parts, replicates, examples)
    effect, inside = power.detectable(own, asked.level), power.within(own, scores.margin, asked.margin_level)
    times, alike = power.needed(parts, gain, replicates, examples, asked)
    alone = np.divide(parts.example / examples, se**2, out=np.zeros_like(se), where=se > 0)
    exact = se == 0
    if exact.any():  # The sign test decides, by replicates alone.
        wanted = 1 + np.ceil(-np.log2(asked.level[exact]))
        grow, moves = np.maximum(wanted / replicates[exact], 1.0), np.abs(gain[exact]) > 0
        effect[exact] = np.where(grow > 1, np.inf, 0.0)
        inside[exact] = scores.margin
        alike[exact] = np.abs(gain[exact]) < scores.margin
        sign = np.array([grow, np.where(grow > 1, np.inf, 1.0), grow])
        times[:, exact] = np.where(alike[exact], 1.0, np.where(moves, sign, np.inf))

    alike = np.where(settled, ~told, alike)

    found: dict[str, dict[float, Power]] = {}
    for g in over:
        cells = np.flatnonzero(at[0] == g)
        labels = _labels(pairs, scores, (g, over[g]), at[1][cells], effect[cells], inside[cells], settled[cells])
        found[scores.regimes[g]] = {
            scores.sizes[at[1][i]]: Power(
                settled=bool(settled[i]),
                shows="equivalent" if alike[i] else "gain" if gain[i] > 0 else "harm",
                level=float(asked.level[i]),
                effect=float(effect[i]),
                test_share=float(alone[i]),
                replicates=int(replicates[i]),
                examples=int(examples[i]),
                replicates_needed=_whole(times[0, i] * replicates[i]),
                examples_needed=_whole(times[1, i] * examples[i]),
                both_needed=float(times[2, i]),
                labels_needed=float(labels[0, k]),
                labels_low=float(labels[1, k]),
                labels_high=float(labels[2, k]),
            )
            for k, i in enumerate(cells.tolist())
        }
    return found


def claimed(power: Power, size: float, claim: str) -> Power:
    """Return a power with the claim that a correction over several targets lets the study make.

    Args:
      power: of one target.
      size: its labels.
      claim: see `mtl.report.analysis.Cell`.
    """
    if power.settled or claim not in ("gain", "harm", "equivalent"):
        return power
    labels = math.nan if math.isnan(power.labels_needed) else size
    return dataclasses.replace(
        power, settled=True, shows=claim, labels_needed=labels, labels_low=labels, labels_high=labels
    )


def _differences(pairs: Pairs, a: int, b: int, s: int) -> Float[np.ndarray, "R K"]:
    """Return the differences of the replicates that both have, in linear form."""
    x = (pairs.better[a, s] - pairs.better[b, s])[pairs.present[a, s] & pairs.present[b, s]]
    return x + (1 - pairs.sizes) * x.mean()


def _asked(
    p: Float[np.ndarray, "G S"], targets: int, looks: int
) -> tuple[Float[np.ndarray, "G S"], Float[np.ndarray, "G S"]]:
    """Return Holm's p values, and the level that each test has to reach while the others stay as they are."""
    family = targets * int((~np.isnan(p)).sum())
    others = np.ones(family - family // targets)
    holm = statistics.holm(np.concatenate([p.ravel(), others]), looks)[: p.size].reshape(p.shape)
    done = holm <= _LEVEL
    return holm, _LEVEL / looks / np.maximum(family - (done.sum() - done), 1)


def _whole(x: float) -> float:
    """Return the least whole number that is enough."""
    return float(np.ceil(x - 1e-6))


def _labels(
    pairs: Pairs,
    scores: Scores,
    pair: tuple[int, int],
    columns: np.ndarray,
    effect: np.ndarray,
    inside: np.ndarray,
    settled: np.ndarray,
) -> Float[np.ndarray, "3 S"]:
    """Return the labels with which each size's comparison is expected to be settled, and the ends of an interval."""
    found = np.full((3, len(columns)), np.nan)
    if getattr(scores.sizes, "field", Sizes.field) != Sizes.field or not len(columns):
        return found
    a, b = pair
    sizes = np.asarray(scores.sizes, dtype=np.float64)[columns]
    found[:, settled] = sizes[settled]
    mean, se = pairs.gain[a, b, columns], pairs.se[a, b, columns]
    shared = {s: pairs.present[a, s] & pairs.present[b, s] for s in columns.tolist()}
    draws = np.stack([pairs.means_drawn(a, s, of) - pairs.means_drawn(b, s, of) for s, of in shared.items()], axis=1)
    draws = draws[~np.isnan(draws).any(axis=1)]
    spread = draws.std(axis=0) if len(draws) else np.zeros(len(columns))
    scale = np.divide(se, spread, out=np.zeros_like(spread), where=spread > 0)
    curves = np.concatenate([mean[None], mean + (draws - mean) * scale])
    # Between sizes a and b of the grid lie steps, the last of which is b.
    last = len(columns) - 1
    step = np.arange(_STEPS * last + 1)
    low, share = np.minimum(step // _STEPS, max(last - 1, 0)), (step % _STEPS) / _STEPS
    share = np.where(step == _STEPS * last, 1.0 if last else 0.0, share)
    high = np.minimum(low + 1, last)

    def between(x: np.ndarray) -> np.ndarray:
        return np.asarray(x[..., low] * (1 - share) + x[..., high] * share)

    shift = 1.0 if sizes[0] == 0 else 0.0
    ticks = np.exp(between(np.log(sizes + shift))) - shift
    ticks[::_STEPS] = sizes
    off = np.abs(between(curves))
    enough = (off >= between(np.minimum(effect, 1e300))) | (off <= between(inside))
    enough[:, ::_STEPS] |= settled
    for k in np.flatnonzero(~settled).tolist():
        rest = enough[:, _STEPS * k + 1 :]
        some = rest.any(axis=1)
        first = np.where(some, ticks[_STEPS * k + 1 :][rest.argmax(axis=1)], np.inf) if rest.shape[1] else some + np.inf
        ends = np.quantile(first[1:], [0.025, 0.975], method="nearest") if len(draws) else [np.nan, np.nan]
        found[:, k] = (first[0], *ends)
    return found
