"""What becomes of a hypothesis: its rules, that its intervals hold together, and its sentence."""

import dataclasses
import math

import numpy as np
import pytest

from mtl.hypothesis import REGIONS, Hypothesis
from mtl.report.analyse import analyse
from mtl.report.hypothesis import found
from mtl.report.targets import analyse_targets
from tests.report.studies import crossed, scores_of

REGIMES = ("scratch", "multitask", "finetune")
NAN = math.nan


@pytest.mark.parametrize(
    ("falsifier", "above", "inside", "around", "below"),
    [
        # The interval [.03, .05] with a margin of .02; [−.01, .01]; [−.03, .03]; [−.05, −.03].
        ("upper <= margin", "holds", "is refuted", "is open", "is refuted"),
        ("upper <= 0", "holds", "is open", "is open", "is refuted"),
        ("upper <= -margin", "holds", "holds", "is open", "is refuted"),
        ("lower >= margin", "is refuted", "holds", "is open", "holds"),
        ("lower >= 0", "is refuted", "is open", "is open", "holds"),
        ("lower >= -margin", "is refuted", "is refuted", "is open", "holds"),
        ("ties", "holds", "is refuted", "is open", "holds"),
        ("differs", "is refuted", "holds", "is open", "is refuted"),
    ],
)
def test_each_rule_says_what_refutes(falsifier, above, inside, around, below):
    intervals = [(0.03, 0.05), (-0.01, 0.01), (-0.03, 0.03), (-0.05, -0.03)]
    assert [found(*ends, falsifier, 0.02) for ends in intervals] == [above, inside, around, below]
    assert found(NAN, NAN, falsifier, 0.02) == "is open"


def test_all_rules_are_tried():
    marks = test_each_rule_says_what_refutes.pytestmark[0].args[1]
    assert {row[0] for row in marks} == set(REGIONS)


def study(sizes=(10.0, 50.0), first="multitask", falsifier="upper <= margin", at=(), seed=0, **changes):
    rates = np.array([[0.7] * len(sizes), [0.8] * len(sizes), [0.72] * len(sizes)])
    stated = Hypothesis(first, "scratch", at, falsifier)
    return scores_of(crossed(rates, seed=seed), REGIMES, sizes, hypothesis=stated, **changes)


def test_of_one_size_it_is_the_gain_of_the_table():
    analysis = analyse(study((10.0,)), 300)
    (answer,) = analysis.answers
    cell = analysis.cells["multitask"][10.0]
    assert (answer.gain, answer.low, answer.high) == pytest.approx((cell.gain, cell.gain_low, cell.gain_high))
    assert answer.finding == "holds"
    first = analysis.details[0]
    assert first.startswith(
        "Stated beforehand: multitask gains more than 2.0 points over scratch (refuted by: upper <= margin). It holds "
        "with 10 labels (+10."
    )
    assert analyse(dataclasses.replace(analysis.scores, hypothesis=None), 300).details[0] == analysis.details[1]
    assert "at 5 % each the hypothesis (Bonferroni)" in analysis.details[-1]


def test_of_several_sizes_the_intervals_hold_together():
    two, one = analyse(study(), 4000), analyse(study(at=(50,)), 4000)
    assert [a.size for a in two.answers] == [10.0, 50.0] and [a.size for a in one.answers] == [50.0]
    wide, narrow = two.answers[1], one.answers[0]
    assert wide.gain == narrow.gain and wide.high - wide.low > 1.05 * (narrow.high - narrow.low)
    assert "intervals of 95 % for the 2 sizes together" in two.details[0]
    assert "together" not in one.details[0]


def test_other_pairs_than_with_the_baseline_and_regimes_that_were_not_measured():
    scores = study()
    pair = dataclasses.replace(scores, hypothesis=Hypothesis("scratch", "multitask", (), "lower >= 0"))
    assert analyse(pair, 200).details[0].startswith("Stated beforehand: scratch is worse than multitask")
    assert all(a.gain < 0 and a.finding == "holds" for a in analyse(pair, 200).answers)
    gone = dataclasses.replace(scores, hypothesis=Hypothesis("lp_ft", "scratch", (), "ties", late=True))
    analysis = analyse(gone, 200)
    assert analysis.details[0] == (
        "Stated when results were there: lp_ft differs by more than 2.0 points from scratch (refuted by: ties). It is "
        "open with 10 labels (not measured) and with 50 labels (not measured); intervals of 95 % for the 2 sizes "
        "together."
    )
    assert "the hypothesis" not in analysis.details[-1]


def several(**changes):
    rows = np.arange(300)
    return [study(task=name, rows=rows, seed=k, **changes) for k, name in enumerate("abc")]


def test_of_several_targets_it_is_answered_on_average_and_for_each():
    networks = {"scratch": 3, "multitask": 1, "finetune": 3}
    found = analyse_targets(several(), networks, 300)
    mean = found.means["multitask"][10.0]
    assert found.answers[0].gain == pytest.approx(mean.gain)
    assert found.answers[0].low < mean.gain_low < mean.gain_high < found.answers[0].high  # Of two sizes together.
    alone = analyse_targets(several(sizes=(10.0,)), networks, 300)
    mean = alone.means["multitask"][10.0]
    (answer,) = alone.answers
    assert (answer.low, answer.high) == pytest.approx((mean.gain_low, mean.gain_high))
    first = alone.details[0]
    assert "It holds with 10 labels (+10." in first and "on average over 3 targets" in first
    assert first.endswith("it holds on a with 10 labels, b with 10 labels and c with 10 labels.")
    own = alone.of["a"].answers[0]
    cell = alone.of["a"].cells["multitask"][10.0]
    assert own.low < cell.gain_low and own.high > cell.gain_high  # Of three targets together.
    mixed = several()
    mixed[1] = dataclasses.replace(mixed[1], metric="auroc")
    found = analyse_targets(mixed, networks, 100)
    assert not found.answers and "(refuted by: upper <= margin). Of single targets" in found.details[0]


@pytest.mark.slow
def test_a_hypothesis_at_its_margin_is_decided_wrongly_in_5_percent():
    studies, wrong = 400, 0
    for seed in range(studies):
        rates = np.array([[0.7] * 3, [0.72] * 3])  # Exactly the margin: neither may be said.
        stated = Hypothesis("multitask", "scratch", (), "upper <= margin")
        scores = scores_of(crossed(rates, 12, 150, seed=seed), REGIMES[:2], hypothesis=stated)
        wrong += any(a.finding != "is open" for a in analyse(scores, 400).answers)
    print(f"{wrong} of {studies} decided")
    assert wrong <= 29  # 5 % and its sampling error.
