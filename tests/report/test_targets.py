"""Several targets: means, gains and Δ_m with their intervals against brute force, and Holm over all of them."""

import dataclasses
import math

import numpy as np
import pytest

from mtl.report import statistics
from mtl.report.analyse import analyse
from mtl.report.analysis import Cost
from mtl.report.targets import analyse_targets
from tests.report.studies import crossed, scores_of

REGIMES = ("scratch", "multitask")


def target(name, values, rows=None, **changes):
    rows = np.arange(values.shape[-1]) if rows is None else rows
    return scores_of(values, REGIMES, task=name, rows=rows, **changes)


def two(seed=0, **changes):
    """Two targets on the same rows."""
    rates = np.array([[0.7, 0.8], [0.75, 0.78]])
    return [target(name, crossed(rates + 0.05 * k, seed=seed + k), **changes) for k, name in enumerate("ab")]


def networks():
    return {"scratch": 2, "multitask": 1}


def test_means_and_delta_are_those_of_the_formulas():
    scores = two()
    found = analyse_targets(scores, networks(), 200)
    for s, size in enumerate(scores[0].sizes):
        m = [x.values[:, s].mean(axis=(1, 2)) for x in scores]
        mean = found.means["multitask"][size]
        assert mean.mean == pytest.approx(np.mean([v[1] for v in m]))
        assert mean.gain == pytest.approx(np.mean([v[1] - v[0] for v in m]))
        assert mean.delta == pytest.approx(100 * np.mean([(v[1] - v[0]) / v[0] for v in m]))
        assert math.isnan(found.means["scratch"][size].gain) and math.isnan(found.means["scratch"][size].delta)
        assert mean.low < mean.mean < mean.high and mean.gain_low < mean.gain < mean.gain_high


def test_less_is_better_turns_the_sign_and_auroc_counts_from_a_half():
    values = crossed(np.array([[0.8], [0.6]]))
    loss = analyse_targets([target("a", values, metric="log_loss", higher_is_better=False)], networks(), 100)
    at = loss.means["multitask"][10.0]
    first, second = values.mean(axis=(1, 2, 3))
    assert at.mean == pytest.approx(second) and at.gain == pytest.approx(first - second)
    assert at.delta == pytest.approx(100 * (first - second) / first)
    auroc = analyse_targets([target("a", values, metric="auroc")], networks(), 100).means["multitask"][10.0]
    assert auroc.delta == pytest.approx(100 * (second - first) / (first - 0.5))


def test_of_one_target_the_mean_is_that_target():
    (scores, _) = two()
    found, alone = analyse_targets([scores], networks(), 300), analyse(scores, 300)
    for size in scores.sizes:
        mean, cell = found.means["multitask"][size], alone.cells["multitask"][size]
        for ours, theirs in (
            ("mean", "mean"),
            ("low", "low"),
            ("high", "high"),
            ("gain", "gain"),
            ("gain_low", "gain_low"),
        ):
            assert getattr(mean, ours) == pytest.approx(getattr(cell, theirs))
        assert dataclasses.replace(found.of["a"].cells["multitask"][size], chosen=0.0) == dataclasses.replace(
            cell, chosen=0.0
        )


@pytest.mark.slow
def test_the_error_of_delta_is_that_of_fresh_studies():
    deltas, widths = [], []
    for seed in range(60):
        at = analyse_targets(two(seed=10 * seed), networks(), 200).means["multitask"][10.0]
        deltas.append(at.delta)
        widths.append(at.delta_high - at.delta_low)
    # Rows and replicates are drawn anew each time: the interval must be about ±2 standard deviations.
    assert np.mean(widths) == pytest.approx(2 * 2.05 * np.std(deltas), rel=0.35)
    truth = 100 * np.mean([0.05 / 0.7, 0.05 / 0.75])
    assert abs(np.mean(deltas) - truth) < 4 * np.std(deltas) / math.sqrt(60)


def test_targets_that_share_their_rows_are_not_independent():
    scores = two()
    twin = dataclasses.replace(scores[0], task="b")
    same = analyse_targets([scores[0], twin], networks(), 300).means["multitask"][10.0]
    alone = analyse_targets(scores[:1], networks(), 300).means["multitask"][10.0]
    assert same.high - same.low == pytest.approx(alone.high - alone.low)  # A twin tells nothing new.
    apart = dataclasses.replace(twin, rows=twin.rows + 1000)
    wide = analyse_targets([scores[0], apart], networks(), 300).means["multitask"][10.0]
    assert wide.mean == pytest.approx(same.mean)
    assert wide.high - wide.low < same.high - same.low


def test_rows_without_a_label_of_a_target_add_nothing_to_it():
    values = crossed(np.array([[0.7], [0.8]]))
    few = target("b", values[..., ::3], rows=np.arange(values.shape[-1])[::3])
    found = analyse_targets([target("a", values), few], networks(), 200).means["multitask"][10.0]
    gains = [values[1, 0].mean() - values[0, 0].mean(), values[1, 0, :, ::3].mean() - values[0, 0, :, ::3].mean()]
    assert found.gain == pytest.approx(np.mean(gains))


def test_holm_is_over_targets_regimes_and_sizes():
    scores = two()
    alone = [analyse(s, 200) for s in scores]
    found = analyse_targets(scores, networks(), 200)
    p = np.array([[a.cells["multitask"][n].p for n in a.scores.sizes] for a in alone])
    wanted = statistics.holm(p)
    for t, name in enumerate("ab"):
        for s, size in enumerate(scores[0].sizes):
            assert found.of[name].cells["multitask"][size].p_holm == pytest.approx(wanted[t, s])
    null = [target(name, crossed(np.full((2, 1), 0.7), replicates=8, seed=k)) for k, name in enumerate("abcdefgh")]
    assert all(
        a.cells["multitask"][10.0].claim in ("inconclusive", "equivalent")
        for a in analyse_targets(null, networks(), 100).of.values()
    )


def test_a_reference_is_told_of_with_the_targets_on_which_it_beats_every_network():
    names = ("scratch", "multitask", "forest")
    rates = {"a": [[0.6], [0.7], [0.8]], "b": [[0.7], [0.8], [0.6]]}
    shared = {"rows": np.arange(300), "controls": ("forest",)}
    scores = [scores_of(crossed(np.array(r)), names, task=task, **shared) for task, r in rates.items()]
    found = analyse_targets(scores, {"scratch": 2, "multitask": 1, "forest": 2}, 200)
    assert [said.split()[0] for said in found.details] == ["multitask", "forest,"]
    assert found.details[1].startswith("forest, without a network, against scratch: on average over 2 targets ")
    assert found.details[1].endswith(
        "better on a with 10 labels; better than every network on a with 10 labels; worse on b with 10 labels."
    )
    raw = [c.p for analysis in found.of.values() for c in analysis.against]
    assert [c.p_holm for a in found.of.values() for c in a.against] == pytest.approx(statistics.holm(np.array(raw)))


def test_delta_is_not_told_where_a_baseline_may_be_zero_nor_means_of_different_metrics():
    values = crossed(np.array([[0.0], [0.1]]), noise=2.0)
    at = analyse_targets([target("a", values, metric="r2")], networks(), 100).means["multitask"][10.0]
    assert math.isnan(at.delta) and not math.isnan(at.gain)
    mixed = [two()[0], dataclasses.replace(two()[1], metric="auroc")]
    at = analyse_targets(mixed, networks(), 100).means["multitask"][10.0]
    assert math.isnan(at.mean) and math.isnan(at.gain) and not math.isnan(at.delta)


def test_replicates_that_some_target_lacks_are_left_out():
    scores = two()
    values = scores[1].values.copy()
    values[1, 0, 3] = np.nan
    values[0, 0, 5] = np.nan
    found = analyse_targets([scores[0], dataclasses.replace(scores[1], values=values)], networks(), 100)
    mean = found.means["multitask"][10.0]
    kept = np.delete(np.arange(20), [3])
    assert mean.mean == pytest.approx(np.mean([s.values[1, 0, kept].mean() for s in scores]))
    both = np.delete(np.arange(20), [3, 5])
    gains = [(s.values[1, 0, both] - s.values[0, 0, both]).mean() for s in scores]
    assert mean.gain == pytest.approx(np.mean(gains))


def test_groups_of_rows_are_resampled_as_wholes():
    groups = np.repeat(np.arange(60), 5)
    rng = np.random.default_rng(0)
    values = crossed(np.array([[0.7], [0.75]])) + rng.normal(0, 0.3, 60)[groups]
    rows = [target("a", values), target("b", values)]
    whole = [dataclasses.replace(s, groups=groups) for s in rows]
    narrow, wide = (analyse_targets(s, networks(), 300).means["multitask"][10.0] for s in (rows, whole))
    assert narrow.mean == pytest.approx(wide.mean)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_the_cost_of_networks_is_that_of_all_of_them():
    cost = {"scratch": Cost(10.0, 100.0, 1.0, 0.0), "multitask": Cost(12.0, 150.0, 1.5, 0.0)}
    found = analyse_targets([dataclasses.replace(s, cost=cost) for s in two()], networks(), 50)
    assert found.cost["scratch"].examples == 20.0 and found.cost["multitask"].flops == 150.0


def test_without_a_baseline_there_are_means_and_no_gains():
    scores = [dataclasses.replace(s, baseline="none") for s in two()]
    at = analyse_targets(scores, networks(), 50).means["multitask"][10.0]
    assert not math.isnan(at.mean) and math.isnan(at.gain) and math.isnan(at.delta)
