from __future__ import annotations

import re

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from mtl.report import contrasts, phrases
from mtl.report.analyse import analyse

from .studies import crossed, scores_of

SIZES = (10.0, 20.0, 50.0, 100.0)


def told(rates, regimes, noise=0.05, seed=0, **changes):
    values = crossed(np.array(rates), noise=noise, seed=seed)
    return analyse(scores_of(values, tuple(regimes), **changes), resamples=300)


def test_a_gain_and_the_crossing_are_the_answer():
    got = told(
        [[0.7, 0.7, 0.7, 0.8], [0.7, 0.75, 0.703, 0.7], [0.6, 0.7, 0.697, 0.8]],
        ["scratch", "linear_probe", "finetune"],
        seed=2,
    )
    first = got.details[0]
    assert re.match(
        r"With 20 labels linear_probe beats scratch by \+\d\.\d points \[\d\.\d, \d\.\d\]; "
        r"scratch and finetune overtake it between 50 and 100 labels; best with 10 labels is one of ",
        first.replace("finetune and scratch", "scratch and finetune"),
    ), first
    cell = got.cells["linear_probe"][20.0]
    assert f"{100 * cell.gain:+.1f} points [{100 * cell.gain_low:.1f}, {100 * cell.gain_high:.1f}]" in first
    assert "Harm: " in got.details[1]
    assert "with 100 labels linear_probe is worse than scratch (−" in got.details[1]
    assert any(s.startswith("Crossovers shown, with 95 % intervals: ") for s in got.details)
    assert got.details[-1].startswith("Claims are made at 5 % over the sweep's 8 comparisons with scratch")


def test_the_least_gain_that_would_be_shown_is_told_at_each_size():
    """The words hold the figures of the power analysis, whose own oracle is simulation (see test_power)."""
    got = told([[0.7] * 4, [0.7, 0.75, 0.703, 0.7], [0.6, 0.7, 0.697, 0.8]], ["scratch", "linear_probe", "finetune"])
    (said,) = (s for s in got.details if "minimum detectable effect" in s)
    for clause, n in zip(said.rstrip(".").partition(": ")[2].split("; "), SIZES, strict=True):
        head, _, ends = clause.partition(": ")
        assert head == f"n = {n:g}"
        effects = sorted(100 * got.power[r][n].effect for r in ("linear_probe", "finetune"))
        found = [float(e) for e in ends.split(" to ")]
        assert [found[0], found[-1]] == pytest.approx(effects, abs=0.051)


def test_gains_at_many_sizes_are_grouped():
    got = told([[0.6] * 4, [0.7, 0.7, 0.7, 0.6], [0.65, 0.65, 0.65, 0.6]], ["scratch", "linear_probe", "lp_ft"])
    assert got.details[0].startswith(
        "With 10 to 50 labels linear_probe and lp_ft beat scratch (most linear_probe with "
    )
    assert "best with 10 labels is linear_probe" in got.details[0]


def test_only_harm():
    got = told([[0.7, 0.7], [0.6, 0.7]], ["scratch", "finetune"], sizes=(10.0, 20.0))
    assert got.details[0].startswith("Harm: with 10 labels finetune is worse than scratch (−")
    assert "no regime is shown to beat scratch at any size; best with 10 labels is scratch" in got.details[0]
    assert "beats" not in got.details[0]


def test_equivalent():
    got = told([[0.7, 0.7], [0.7, 0.7]], ["scratch", "finetune"], sizes=(10.0, 20.0))
    assert got.details[0] == (
        "Equivalent: finetune does not differ from scratch by more than the margin of 2.0 points with 10 and "
        "20 labels; with 10 labels no regime can be told from the best; with 20 labels no regime can be told "
        "from the best."
    )


def test_inconclusive():
    got = told([[0.7, 0.7], [0.7, 0.7]], ["scratch", "finetune"], noise=3.0, sizes=(10.0, 20.0))
    assert got.details[0].startswith("Inconclusive: no regime is shown to gain over scratch or to do harm")
    assert len(got.details) == 4 and "on average" in got.details[1] and "detectable" in got.details[2]


def test_a_gain_below_the_margin_is_called_so():
    got = told([[0.7], [0.705]], ["scratch", "finetune"], noise=0.01, margin=0.03, sizes=(10.0,), seed=3)
    if got.cells["finetune"][10.0].claim == "gain":
        assert "less than the margin of 3.0 points" in got.details[0]
    values = np.full((2, 1, 20, 30), 0.7)
    values[1] += 0.004 + 0.001 * np.random.default_rng(0).normal(size=(1, 20, 30))
    small = analyse(scores_of(values, ("scratch", "finetune")), resamples=200)
    assert "less than the margin of 2.0 points" in small.details[0]


def test_other_units_and_lower_is_better():
    values = crossed(np.array([[0.7], [0.6]]))
    got = analyse(
        scores_of(values, ("scratch", "finetune"), metric="log_loss", unit=1.0, higher_is_better=False),
        resamples=200,
    )
    assert re.match(
        r"With 10 labels finetune beats scratch by \+0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] in log_loss",
        got.details[0],
    )
    assert "points" not in " ".join(got.details)


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        (
            [0.6, 0.9, 0.8, 0.7],
            r"with 10 labels linear_probe beats every joint regime \(\+\d+\.\d points .*\)",
        ),
        (
            [0.6, 0.7, 0.8, 0.9],
            r"with 10 labels multitask_finetune beats linear_probe \(\+\d+\.\d points .*\)",
        ),
        ([0.6, 0.8, 0.7, 0.8], "with 10 labels neither side has a regime that is shown to beat every regime"),
    ],
)
def test_multitask_against_transfer(rates, words):
    names = ["scratch", "linear_probe", "multitask", "multitask_finetune"]
    got = told([[r] for r in rates], names, sizes=(10.0,))
    (text,) = [s for s in got.details if s.startswith("Multi-task")]
    assert text.startswith("Multi-task (multitask and multitask_finetune) against transfer (linear_probe)")
    assert re.search(words, text), text


@pytest.mark.parametrize(
    ("joint", "words"),
    [
        (0.8, "hold against multitask_examples, and so rest on its further examples: multitask with 10 labels."),
        (
            0.7,
            "not shown to exceed multitask_examples (which gains too with 10 labels), and so are not shown to need its "
            "further examples: multitask with 10 labels (",
        ),
    ],
)
def test_a_joint_gain_with_equal_examples_is_said(joint, words):
    names = ["scratch", "multitask_examples", "multitask", "finetune"]
    got = told([[0.6], [0.7], [joint], [0.8]], names, sizes=(10.0,), controls=("multitask_examples",))
    text = " ".join(got.details)
    assert "multitask_examples" not in got.details[0].split("; best")[0]
    assert re.search(
        r"With 10 labels multitask_examples, trained jointly on as many examples as the others, "
        r"beats scratch by \+\d+\.\d points .*: that much comes without more examples than the others see\.",
        text,
    )
    assert words in text


@pytest.mark.parametrize(
    ("random", "words"),
    [
        (0.5, "hold against random_probe, and so are the trained trunk's: linear_probe with 10 labels."),
        (0.8, "and so are not shown to be the source's: linear_probe with 10 labels ("),
    ],
)
def test_random_probe_speaks_of_the_probe_only(random, words):
    names = ["scratch", "random_probe", "linear_probe", "finetune"]
    got = told([[0.6], [random], [0.8], [0.9]], names, sizes=(10.0,), controls=("random_probe",))
    text = " ".join(got.details)
    assert words in text
    assert "random_probe, which never trained its trunk," in text


def test_a_reference_that_is_better_than_every_network_is_said_plainly_and_never_a_contender():
    names = ["scratch", "scratch_matched", "multitask", "forest", "logistic_regression"]
    controls = ("scratch_matched", "forest", "logistic_regression")
    rates = [[0.6, 0.8], [0.6, 0.8], [0.7, 0.9], [0.8, 0.8], [0.55, 0.6]]
    got = told(rates, names, sizes=(10.0, 20.0), controls=controls)
    assert got.details[0].startswith("With 10 and 20 labels multitask beats scratch")
    text = " ".join(got.details)
    assert re.search(
        r"With 10 labels forest, a random forest on the same labels, beats scratch by \+\d+\.\d points [^:]*: that "
        r"much comes without a network\. With 10 labels forest is better than every network "
        r"\(by at least \+\d+\.\d points \[\d+\.\d, \d+\.\d\] over multitask\)\.",
        text,
    )
    assert "hold against forest, and so need a network: multitask with 20 labels." in text
    assert "may be had without a network: multitask with 10 labels (" in text
    assert text.count("better than every network") == 1
    assert {c.first for c in got.against if c.second == "forest"} == {"scratch_matched", "multitask"}


def test_a_reference_is_not_said_to_be_better_than_networks_that_it_is_not_shown_to_beat():
    names, controls = ["scratch", "multitask", "forest"], ("forest",)
    for rates in ([0.6, 0.8, 0.8], [0.8, 0.6, 0.8], [0.6, 0.8, 0.7]):
        got = told([[r] for r in rates], names, sizes=(10.0,), controls=controls)
        assert "every network" not in " ".join(got.details)
    alone = told([[0.6], [0.8]], ["scratch", "forest"], sizes=(10.0,), controls=controls)
    assert "every network" not in " ".join(alone.details)  # That it beats scratch has been said.
    many = told([[0.6, 0.6], [0.7, 0.65], [0.8, 0.8]], names, sizes=(10.0, 20.0), controls=controls)
    (text,) = [s for s in many.details if "every network" in s]
    assert text.startswith("With 10 and 20 labels forest") and text.endswith("over multitask with 10 labels).")


def test_a_control_without_an_effect_or_a_result():
    got = told([[0.6], [0.6], [0.8]], ["scratch", "placebo", "finetune"], sizes=(10.0,), controls=("placebo",))
    assert any(s.startswith("The control placebo is equivalent to scratch") for s in got.details)
    values = crossed(np.array([[0.6], [0.6], [0.8]]))
    values[1] = np.nan
    gone = analyse(scores_of(values, ("scratch", "placebo", "finetune"), controls=("placebo",)), resamples=100)
    assert "The control placebo was not measured." in gone.details
    assert gone.details[0].startswith("With 10 labels finetune beats scratch")


def test_regimes_that_share_no_replicate():
    values = crossed(np.array([[0.6], [0.8]]))
    values[0, 0, :10], values[1, 0, 10:] = np.nan, np.nan
    got = analyse(scores_of(values, ("scratch", "finetune")), resamples=100)
    assert got.details[0].startswith("finetune and scratch share no replicate at any size")


def test_the_last_sentence_adds_up_what_the_verdict_draws_on():
    two = told([[0.7, 0.7], [0.8, 0.7]], ["scratch", "finetune"], sizes=(10.0, 20.0)).details[-1]
    assert two == (
        "Claims are made at 5 % over the sweep's 2 comparisons with scratch together (Holm), equivalences at 5 % over "
        "the same together (Holm), and at 5 % each the best with 10 labels (Hsu), the best with 20 labels (Hsu) and "
        "crossovers (Holm): so at most 25 % of such verdicts hold any false claim (the sum); intervals are 95 % each, "
        "over replicates and test examples."
    )
    one = told([[0.7], [0.8]], ["scratch", "finetune"], sizes=(10.0,)).details[-1]
    assert "crossovers" not in one
    assert "at most 15 % of such" in one
    names = ["scratch", "placebo", "multitask_examples", "linear_probe", "multitask"]
    controls = ("placebo", "multitask_examples")
    whole = told([[0.6, 0.7]] * 5, names, sizes=(10.0, 20.0), controls=controls).details[-1]
    assert "multi-task against transfer (Holm) and gains against controls (Holm): so at most 35 % of such" in whole


def test_controls_are_one_family():
    """What holds against any control is corrected for all of them: 2 controls × 2 contenders × 1 size."""
    values = crossed(np.array([[0.6], [0.6], [0.6], [0.64], [0.64]]), noise=0.3, seed=3)
    names = ("scratch", "placebo", "multitask_examples", "finetune", "lora")
    pairs = contrasts.compare(values, np.zeros((1, 5, 1)))
    raw = np.array([[pairs.p(a, b, 0) for b in (1, 2)] for a in (3, 4)]).T.ravel()
    couples = [(r, c) for c in names[1:3] for r in names[3:]]
    found = contrasts.family(pairs, names, (10.0,), couples)
    np.testing.assert_allclose([c.p_holm for c in found], multipletests(raw, method="holm")[1])
    assert [(c.first, c.second) for c in found] == couples


def test_phrases():
    assert phrases.with_labels((1.0,), (1.0, 2.0)) == "with 1 label"
    assert phrases.with_labels((10.0, 20.0, 50.0, 0.5), (0.5, 10.0, 20.0, 50.0)) == "with 10 to 50 and 0.5 labels"
    assert phrases.with_labels((10.0, 50.0), SIZES) == "with 10 and 50 labels"
    assert phrases.join(["a", "b", "c"], "or") == "a, b or c"
    scores = scores_of(np.zeros((1, 1, 1, 1)), ("scratch",))
    assert phrases.value(-0.0001, scores, signed=True) == "0.0"
    assert phrases.capital("scratch was", ("scratch",)) == "scratch was"


def test_every_sentence_is_one():
    got = told(
        [[0.7, 0.8], [0.7, 0.8], [0.6, 0.7], [0.8, 0.75], [0.75, 0.85], [0.7, 0.8]],
        ["scratch", "multitask_examples", "random_probe", "linear_probe", "finetune", "multitask"],
        sizes=(10.0, 20.0),
        controls=("multitask_examples", "random_probe"),
    )
    for text in (*got.details, *got.warnings):
        assert text.endswith(".")
        assert "  " not in text
        assert "nan" not in text
        assert text[0].isupper() or text.split()[0].strip(",") in got.scores.regimes


def test_a_gain_that_is_not_shown_to_exceed_a_control_comes_with_the_difference_and_its_p():
    names = ("scratch", "placebo", "finetune")
    got = told([[0.6], [0.72], [0.721]], names, sizes=(10.0,), controls=("placebo",))
    (contrast,) = [c for c in got.against if c.first == "finetune"]
    (text,) = [s for s in got.details if "not shown to exceed placebo" in s]
    amount = phrases.amount(contrast.gain, contrast.low, contrast.high, got.scores)
    assert text.endswith(f"finetune with 10 labels ({amount} over it, p = {contrast.p_holm:.2f}).")


def test_what_a_regime_comes_to_over_all_sizes_is_said():
    got = told([[0.6, 0.7], [0.7, 0.75]], ("scratch", "finetune"), sizes=(10.0, 20.0))
    over = got.over_sizes["finetune"]
    (text,) = [s for s in got.details if s.startswith("Over all sizes")]
    assert f"finetune gains {phrases.amount(over.gain, over.gain_low, over.gain_high, got.scores)} on average" in text
    assert f"is better in {100 * over.improvement:.0f} % [" in text and "the labels" in text
    one = told([[0.6], [0.7]], ("scratch", "finetune"), sizes=(10.0,))
    assert not any(s.startswith("Over all sizes") for s in one.details)
