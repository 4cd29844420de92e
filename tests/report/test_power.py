"""What would settle a comparison: power as planned against the tests' own on made-up studies."""

import itertools
import math

import numpy as np
import pytest
from scipy import special, stats
from statsmodels.stats.power import TTestPower

from mtl.report import power, statistics
from mtl.report.analyse import analyse
from mtl.report.analysis import Sizes
from mtl.report.settle import claimed
from mtl.report.targets import analyse_targets

from .studies import scores_of

PAIR = ("scratch", "finetune")
#: Standard deviations of replicates, test examples and their interaction; R and I.
WORLDS = [((1, 3, 1), 6, 40), ((1, 0, 3), 20, 60), ((0.3, 3, 3), 12, 50), ((0, 2, 2), 5, 80)]


def table(rng, deviations, replicates, examples, studies=1):
    a, b, e = deviations
    shapes = (replicates, 1), (1, examples), (replicates, examples)
    return sum(rng.normal(0, sd, (studies, *shape)) for sd, shape in zip((a, b, e), shapes, strict=True))


def known(deviations, examples):
    return power.Components(*(np.array([float(v)]) for v in (*np.square(deviations), (examples - 1) / examples)))


def arrays(*numbers):
    return [np.array([float(v)]) for v in numbers]


def rates(rng, deviations, gain, replicates, examples, margin=0.0, level=0.05, studies=1200):
    """How often the tests show the gain, and equivalence."""
    mean, se, df, _ = statistics.two_way_error(table(rng, deviations, replicates, examples, studies))
    sets = [(float(m) + gain, float(s), float(d)) for m, s, d in zip(mean, se, df, strict=True)]
    shown = np.mean([statistics.p_value(*own, replicates) <= level and own[0] > 0 for own in sets])
    return shown, np.mean([statistics.tost(*own, margin) <= level for own in sets])


@pytest.mark.parametrize(("deviations", "replicates", "examples"), WORLDS)
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_the_minimum_detectable_effect_is_that_of_the_rule(deviations, replicates, examples, level):
    rng = np.random.default_rng(0)
    x = table(rng, deviations, replicates, examples, 1500)
    mean, se, df, _ = statistics.two_way_error(x)
    truth = np.quantile(special.stdtrit(df, 1 - level / 2) * se - mean, 0.8)  # A gain of this is shown in 80 %.
    design, levels = power.design(known(deviations, examples), *arrays(replicates, examples)), np.array([level])
    assert power.detectable(design, levels)[0] == pytest.approx(truth, rel=0.08)
    parts = power.Components(*np.array([power.components(own) for own in x[:300]]).T)
    found = power.detectable(power.design(parts, *arrays(replicates, examples)), levels)
    assert np.median(found) == pytest.approx(truth, rel=0.2)


@pytest.mark.parametrize(("deviations", "replicates", "examples"), WORLDS)
def test_replicates_and_examples_needed_are_those_of_the_rule(deviations, replicates, examples):
    rng = np.random.default_rng(1)
    parts = known(deviations, examples)
    asked = power.Asked(*arrays(0.05, 0.05), 0.0)
    gain = 0.8 * power.detectable(power.design(parts, *arrays(replicates, examples)), asked.level)
    times, alike = power.needed(parts, gain, *arrays(replicates, examples), asked)
    assert not alike[0]
    tried = 0
    for grows, factor in zip(([1, 0], [0, 1], [1, 1]), times[:, 0], strict=True):
        if factor * replicates * examples > 20_000:
            continue
        for more, side in ((0.8, -1), (1.2, 1)):  # So the truth is within 20 %.
            r, i = (max(round(n * (more * factor) ** g), 2) for n, g in zip((replicates, examples), grows, strict=True))
            shown, _ = rates(rng, deviations, gain[0], r, i)
            assert side * (shown - 0.8) > 0, (grows, factor, more, shown)
        tried += 1
    assert tried >= 2


def test_where_the_test_set_is_too_small_no_number_of_replicates_is_enough():
    rng, deviations = np.random.default_rng(2), (0.5, 3.0, 1.0)
    parts, asked = known(deviations, 30), power.Asked(*arrays(0.05, 0.05), 0.0)
    times, _ = power.needed(parts, np.array([1.2]), *arrays(10, 30), asked)
    assert math.isinf(times[0, 0]) and 1 < times[1, 0] < 5
    assert rates(rng, deviations, 1.2, 600, 30, studies=200)[0] < 0.75
    for more, side in ((0.8, -1), (1.2, 1)):
        assert side * (rates(rng, deviations, 1.2, 10, round(30 * times[1, 0] * more))[0] - 0.8) > 0


@pytest.mark.parametrize("gain", [0.0, 0.4])
def test_equivalence_needs_what_its_tests_need(gain):
    rng, deviations, margin = np.random.default_rng(3), (1.5, 1.0, 2.0), 1.0
    parts, asked = known(deviations, 60), power.Asked(*arrays(1e-9, 0.05), margin)
    times, alike = power.needed(parts, np.array([gain]), *arrays(8, 60), asked)
    assert alike[0]
    for more, side in ((0.8, -1), (1.2, 1)):
        r = round(8 * times[0, 0] * more)
        assert side * (rates(rng, deviations, gain, r, 60, margin)[1] - 0.8) > 0
    # The greatest gain that is found equivalent is the one that needs what there is.
    inside = power.within(power.design(parts, *arrays(30, 60)), margin, asked.margin_level)
    assert power.needed(parts, inside, *arrays(30, 60), asked)[0][0, 0] == pytest.approx(1.0, abs=1e-3)
    assert power.within(power.design(parts, *arrays(2, 60)), margin, asked.margin_level)[0] == -1


@pytest.mark.parametrize(("replicates", "level"), [(2, 0.05), (5, 0.05), (20, 0.001)])
def test_of_one_example_it_is_the_power_of_students_test(replicates, level):
    parts = power.Components(*arrays(4.0, 0.0, 0.0), np.array([1.0]))
    design, levels = power.design(parts, *arrays(replicates, 1)), np.array([level])
    gains = np.array([0.5, 2.0, 9.0])
    df, critical = replicates - 1, stats.t.isf(level / 2, replicates - 1)
    wanted = stats.nct.sf(critical, df, gains / 2 * math.sqrt(replicates))
    np.testing.assert_allclose([power.shown(design, np.array([g]), levels)[0] for g in gains], wanted, atol=2e-3)
    effect = TTestPower().solve_power(None, replicates, level, 0.8)
    assert power.detectable(design, levels)[0] == pytest.approx(2 * effect, rel=0.01)


def test_components_are_unbiased():
    x = table(np.random.default_rng(4), (1, 2, 3), 8, 30, 2000)
    found = np.mean([[float(v) for v in power.components(own)[:3]] for own in x], axis=0)
    np.testing.assert_allclose(found, [1, 4, 9], rtol=0.06)


def study(gains, deviations=(0.02, 0.3, 0.2), replicates=10, examples=300, seed=0, **changes):
    """A study of two regimes whose differences have the deviations and gains of sizes, and what it comes to."""
    rng = np.random.default_rng(seed)
    own = table(rng, deviations, replicates, examples, len(gains)) + np.array(gains)[:, None, None]
    base = rng.normal(0.7, 0.1, (len(gains), replicates, examples))
    scores = scores_of(np.stack([base, base + own]), PAIR, **changes)
    return analyse(scores, resamples=200)


def test_a_study_says_what_would_settle_it():
    got = study([0.2, 0.03, 0.0], (0.1, 0.0, 0.2))
    shown, open_, _ = (got.power["finetune"][n] for n in (10.0, 20.0, 50.0))
    assert list(got.power) == ["finetune"]
    assert (shown.settled, shown.shows, shown.labels_needed) == (True, "gain", 10.0)
    assert (open_.settled, open_.replicates, open_.examples) == (False, 10, 300)
    assert open_.replicates_needed > 20 and open_.test_share < 0.05
    # Holm: three tests, of which one is shown.
    assert (shown.level, open_.level) == (pytest.approx(0.05 / 3), pytest.approx(0.05 / 2))
    # More replicates do not help where all that varies is the test set.
    fixed = study([0.04], (0.005, 0.4, 0.05), margin=0.0).power["finetune"][10.0]
    assert math.isinf(fixed.replicates_needed) and fixed.test_share > 0.9
    assert 300 < fixed.examples_needed < math.inf


@pytest.mark.parametrize(
    ("deviations", "replicates", "share"), [((1, 0.5, 1), 10, 0.8), ((1, 0, 1), 20, 0.7), ((1, 0.5, 3), 10, 0.7)]
)
def test_studies_are_right_in_the_median(deviations, replicates, share):
    asked, parts = power.Asked(*arrays(0.05, 0.05), 0.0), known(deviations, 60)
    gain = share * power.detectable(power.design(parts, *arrays(replicates, 60)), asked.level)
    truth = power.needed(parts, gain, *arrays(replicates, 60), asked)[0][0, 0] * replicates
    found = [study(gain.tolist(), deviations, replicates, 60, k, margin=0.0).power["finetune"][10.0] for k in range(80)]
    assert np.median([f.replicates_needed for f in found]) == pytest.approx(truth, rel=0.2)
    assert np.median([f.effect for f in found]) == pytest.approx(gain[0] / share, rel=0.1)


def test_the_unit_does_not_matter_and_more_is_never_needed_for_more():
    rng = np.random.default_rng(5)
    x = table(rng, (1, 1, 2), 6, 40)[0]
    for scale in (1.0, 1e-3):
        parts = power.Components(*(np.asarray(v)[None] for v in power.components(x * scale)))
        found = [
            power.needed(parts, np.array([g * scale]), *arrays(6, 40), power.Asked(*arrays(0.05, 0.05), 0.0))[0][:, 0]
            for g in (0.5, 1.0, 1.5)
        ]
        assert all(a[k] >= b[k] and a[2] > b[2] for a, b in itertools.pairwise(found) for k in (0, 1))
        if scale == 1.0:
            first = found
    np.testing.assert_allclose(found, first, rtol=1e-6)


def test_of_several_targets_what_is_settled_is_what_is_claimed():
    rng = np.random.default_rng(9)
    gains = np.array([[0.3, 0.0], [0.3, 0.12], [0.3, 0.11]])  # Of three targets at two sizes.
    each = []
    for k, own in enumerate(gains):
        base = rng.normal(0.7, 0.1, (2, 10, 60))
        better = base + table(rng, (0.08, 0.0, 0.2), 10, 60, 2) + own[:, None, None]
        each.append(scores_of(np.stack([base, better]), PAIR, task=f"t{k}", rows=np.arange(60)))
    found = analyse_targets(each, dict.fromkeys(PAIR, 3), 200)
    assert {a.cells["finetune"][10.0].claim for a in found.of.values()} == {"gain"}
    for analysis in found.of.values():
        for n, own in analysis.power["finetune"].items():
            claim = analysis.cells["finetune"][n].claim
            assert own.settled == (claim in ("gain", "harm", "equivalent"))
            assert not own.settled or (own.shows, own.labels_needed) == (claim, n)
            assert 0.05 / 6 <= own.level <= 0.05 / 4  # Of six tests.
            assert claimed(own, n, "inconclusive") is own


def test_differences_without_spread_are_left_to_the_sign_test():
    values = np.full((2, 1, 4, 9), 0.5)
    values[1] += 0.1
    found = analyse(scores_of(values, PAIR), resamples=50).power["finetune"][10.0]
    assert (found.settled, found.effect, found.replicates_needed) == (False, math.inf, 6)  # 2^(1−6) ≤ 0.05.
    same = analyse(scores_of(np.full((2, 1, 4, 9), 0.5), PAIR), resamples=50).power["finetune"][10.0]
    assert (same.settled, same.shows, same.replicates_needed) == (True, "equivalent", 4)


def test_one_replicate_has_no_power_and_missing_ones_are_not_counted():
    assert analyse(scores_of(np.random.default_rng(6).normal(size=(2, 1, 1, 9)), PAIR), 50).power == {"finetune": {}}
    values = np.random.default_rng(6).normal(size=(2, 2, 6, 9))
    values[0, 1, :2] = np.nan
    values[1, 0] = np.nan
    found = analyse(scores_of(values, PAIR), 50).power["finetune"]
    assert list(found) == [20.0]
    assert found[20.0].replicates == 4


def test_groups_are_what_more_are_needed_of():
    values = np.random.default_rng(7).normal(size=(2, 1, 8, 60))
    found = analyse(scores_of(values, PAIR, groups=np.repeat(np.arange(20), 3), margin=0.0), 50)
    assert found.power["finetune"][10.0].examples == 20


def test_columns_that_are_no_labels_need_none():
    got = study([0.1, 0.0], sizes=Sizes.of("data.source_size", (10.0, 20.0))).power["finetune"]
    assert all(math.isnan(got[n].labels_needed) for n in (10.0, 20.0))


@pytest.mark.slow
def test_labels_needed_are_those_at_which_the_rule_has_its_power():
    rng, deviations = np.random.default_rng(8), (0.05, 0.2, 0.4)
    replicates, examples, slope = 10, 80, 0.15 / math.log(10)

    def gain(n):
        return slope * math.log(n / 10)

    found = []
    for seed in range(60):
        sizes = (10.0, 100.0, 1000.0)
        got = study([gain(n) for n in sizes], deviations, replicates, examples, seed, margin=0.0, sizes=sizes)
        found.append(got.power["finetune"][10.0])
    needed = np.median([f.labels_needed for f in found])
    level = float(np.median([f.level for f in found]))
    for more, side in ((0.8, -1), (1.2, 1)):
        shown, _ = rates(rng, deviations, gain(needed * more), replicates, examples, level=level)
        assert side * (shown - 0.8) > 0
    covered = np.mean([f.labels_low <= needed <= f.labels_high for f in found])
    assert covered > 0.8
