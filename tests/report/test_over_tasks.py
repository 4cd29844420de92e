"""Over tasks × replicates: values against other code, intervals against simulated truth, and studies of nothing."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from mtl.report import efficiency, settle
from mtl.report.analyse import analyse
from mtl.report.means import means
from mtl.report.over_tasks import improvement, interquartile_mean, share_interval
from mtl.report.targets import analyse_targets
from tests.report.studies import null_study, scores_of

TASKS = 12
REGIMES = ("scratch", "multitask")


def study_of(values, **changes):
    """The scores of each target, from values [targets, regimes, sizes, replicates, rows] on the same rows."""
    rows = np.arange(values.shape[-1])
    return [scores_of(v, changes.get("regimes", REGIMES), task=f"t{k}", rows=rows) for k, v in enumerate(values)]


@pytest.mark.parametrize("shape", [(3, 4), (12, 20), (5, 1), (1, 2), (7, 3)])
def test_the_interquartile_mean_is_scipys_trimmed_mean(shape):
    gains = np.random.default_rng(0).normal(size=shape)
    found = interquartile_mean(gains)
    assert found.value == pytest.approx(stats.trim_mean(gains, 0.25, axis=None))
    assert found.parts.mean() == pytest.approx(found.value)


def test_slopes_are_how_much_the_interquartile_mean_changes():
    gains = np.random.default_rng(1).normal(size=(4, 6))
    found = interquartile_mean(gains)
    for at in np.ndindex(*gains.shape):
        moved = gains.copy()
        moved[at] += 1e-9
        change = (interquartile_mean(moved).value - found.value) / 1e-9 * gains.size
        edges = np.sort(gains, axis=None)[[6, 17]]
        if gains[at] not in edges:
            assert change == pytest.approx(found.slopes[at], abs=1e-4)


def test_the_probability_of_improvement_is_that_of_a_pair_and_counts_ties_half():
    gains = np.array([[0.1, -0.1, 0.0], [0.2, 0.3, 0.4]])
    assert improvement(gains).value == pytest.approx((1 + 0 + 0.5 + 3) / 6)
    many = np.random.default_rng(2).normal(0.3, 1.0, size=(1, 20_000))
    found = improvement(many)
    assert found.value == pytest.approx(stats.norm.cdf(0.3), abs=0.01)
    # A test set on which all gains are a little greater.
    slope = (improvement(many + 0.01).value - improvement(many - 0.01).value) / 0.02
    assert found.slopes.mean() == pytest.approx(slope, rel=0.1)


def test_the_interval_of_a_share_is_wilsons():
    p, n = 0.3, 40
    low, high = share_interval(p, math.sqrt(p * (1 - p) / n), 1e9, n)
    wanted = stats.binomtest(12, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-6)
    assert share_interval(0.0, 0.0, 9.0, 10)[1] > 0.3
    assert all(map(math.isnan, share_interval(0.5, math.nan, math.nan, 1)))


def test_they_are_in_the_means_over_targets():
    rng = np.random.default_rng(3)
    values = 0.7 + rng.normal(0, 0.1, (5, 2, 1, 6, 80))
    values[:, 1, :, 2] = np.nan
    found = analyse_targets(study_of(values), {"scratch": 5, "multitask": 1}, 200).means["multitask"][10.0]
    kept = np.delete(values, 2, axis=3)[:, :, 0].mean(axis=-1)  # [targets, regimes, replicates]
    gains = (kept[:, 1] - kept[:, 0]) / kept[:, 0].mean(axis=-1, keepdims=True)
    assert found.iqm == pytest.approx(100 * stats.trim_mean(gains, 0.25, axis=None))
    assert found.improvement == pytest.approx((gains > 0).mean())
    assert found.iqm_low < found.iqm < found.iqm_high
    assert 0 <= found.improvement_low < found.improvement < found.improvement_high <= 1


def test_one_replicate_has_no_interval_of_the_probability_of_improvement():
    values = 0.7 + np.random.default_rng(4).normal(0, 0.1, (3, 2, 1, 1, 50))
    found = analyse_targets(study_of(values), {"scratch": 3, "multitask": 1}, 100).means["multitask"][10.0]
    assert 0 <= found.improvement <= 1 and math.isnan(found.improvement_low)
    assert found.iqm_low < found.iqm < found.iqm_high  # Over test rows only.


def crossed_gains(rng, effects, replicates, rows):
    """Gains [tasks, replicates, rows]: replicates and rows move all tasks, and each by itself; and there is noise."""
    tasks = len(effects)
    of_replicates = 0.6 * rng.normal(size=(replicates, 1)) + 0.8 * rng.normal(size=(tasks, replicates, 1))
    of_rows = 0.6 * rng.normal(size=rows) + 0.8 * rng.normal(size=(tasks, 1, rows))
    noise = rng.normal(0, 0.2, (tasks, replicates, rows))
    return effects[:, None, None] + 0.02 * of_replicates + 0.2 * of_rows + noise


@pytest.fixture
def claims_alone(monkeypatch):
    """Leave out what no interval and no claim depends on, two thirds of an analysis: power, and worth in labels."""
    monkeypatch.setattr(settle, "powers", lambda *_a, **_k: {})
    monkeypatch.setattr(efficiency, "worth", lambda *_a, **_k: ({}, {}))


@pytest.mark.slow
@pytest.mark.usefixtures("claims_alone")
@pytest.mark.parametrize(("mean", "spread"), [(0.01, 0.03), (0.02, 0.01)])
def test_intervals_hold_the_truth_as_often_as_they_say(mean, spread):
    studies, replicates, rows = 500, 15, 150
    rng = np.random.default_rng(round(1e4 * mean))
    effects = rng.normal(mean, spread, TASKS)
    level = rng.uniform(0.6, 0.9, TASKS)
    # What is measured, of fresh replicates on fresh test sets of this size.
    fresh = effects[:, None] + rng.normal(size=(TASKS, 200_000)) * math.sqrt(0.02**2 + 2 * 0.2**2 / rows)
    truth = {
        "gain": effects.mean(),
        "delta": 100 * (effects / level).mean(),
        "iqm": 100 * stats.trim_mean(fresh / level[:, None], 0.25, axis=None),
        "improvement": (fresh > 0).mean(),
    }
    held = dict.fromkeys(truth, 0)
    for _ in range(studies):
        base = level[:, None, None] + 0.02 * rng.normal(size=(replicates, 1)) + 0.3 * rng.normal(size=rows)
        values = np.stack([base, base + crossed_gains(rng, effects, replicates, rows)], axis=1)[:, :, None]
        found = means([analyse(s, 20) for s in study_of(values)], 200, 0)["multitask"][10.0]
        for name, value in truth.items():
            held[name] += getattr(found, f"{name}_low") <= value <= getattr(found, f"{name}_high")
    coverage = {name: count / studies for name, count in held.items()}
    print(truth, coverage)
    assert all(0.93 <= share <= 0.97 for share in coverage.values()), coverage


@pytest.mark.slow
@pytest.mark.usefixtures("claims_alone")
def test_a_study_of_nothing_on_12_tasks_makes_claims_in_5_percent():
    studies, sizes, names = 300, 2, ("scratch", "again", "other")
    rng, wrong = np.random.default_rng(12), 0
    networks = dict.fromkeys(names, 1)
    for _ in range(studies):
        level = rng.normal(0.8, 0.3, sizes)
        values = np.stack([null_study(rng, len(names), level, 10, 150) for _ in range(TASKS)])
        found = analyse_targets(study_of(values, regimes=names), networks, 20)
        claims = {c.claim for a in found.of.values() for r in names[1:] for c in a.cells[r].values()}
        wrong += bool(claims & {"gain", "harm"})
        told = " ".join(found.details)
        assert ("better on t" in told or "worse on t" in told) == bool(claims & {"gain", "harm"})
    print(f"{wrong} of {studies} studies of nothing make a claim")
    assert wrong <= stats.binom.ppf(0.98, studies, 0.05)


def test_targets_on_rows_of_their_own_and_in_groups_have_both():
    rng = np.random.default_rng(5)
    values = 0.7 + rng.normal(0, 0.1, (3, 2, 1, 6, 80))
    scores = study_of(values)
    scores[1] = dataclasses.replace(scores[1], rows=scores[1].rows + 40)
    groups = [dataclasses.replace(s, groups=s.rows // 4) for s in scores]
    one, other = (means([analyse(s, 50) for s in each], 200, 0)["multitask"][10.0] for each in (scores, groups))
    assert one.iqm == pytest.approx(other.iqm) and one.improvement == other.improvement
    assert one.improvement_high != other.improvement_high
