"""What a doubled budget says of a sweep's claims, and what harm that had not converged is called."""

import dataclasses
import re

import numpy as np
import pytest

from mtl.report import figures
from mtl.report.analyse import analyse
from mtl.report.page import page
from mtl.report.show import FORMATS, tables_of
from mtl.report.tables import gain_table, result_table
from mtl.report.targets import analyse_targets

from .studies import crossed, null_study, scores_of

DOUBLED = ("scratch@2", "multitask@2", "finetune@2")
REGIMES = ("scratch", "multitask", "finetune", *DOUBLED)
SIZES = (10.0, 20.0)


def told(once, twice, **changes):
    """Scratch has .7 at every budget; ``once`` and ``twice`` are the gains of multitask and finetune at each size."""
    rates = 0.7 + np.array([(0.0, 0.0), *once, (0.02, 0.02), *((a + 0.02, b + 0.02) for a, b in twice)])
    return analyse(scores_of(crossed(rates), REGIMES, SIZES, controls=DOUBLED, **changes), 200)


def sentence(analysis):
    (found,) = (s for s in analysis.details if s.startswith("At a doubled budget"))
    return found


def test_a_starved_budget_is_told_as_such():
    """The issue's own example: harm by joint training which more updates turn."""
    got = told([(-0.128, 0.1), (0.05, 0.05)], [(0.027, 0.1), (0.05, 0.05)])
    cell = got.cells["multitask@2"][10.0]
    interval = f"[{100 * cell.gain_low:.1f}, {100 * cell.gain_high:.1f}]"
    assert sentence(got) == (
        "At a doubled budget (each ×2 against scratch ×2) 3 of 4 claims over scratch hold; from a starved "
        f"budget: harm by multitask with 10 labels (−{-100 * got.cells['multitask'][10.0].gain:.1f}, there "
        f"+{100 * cell.gain:.1f} points {interval})."
    )
    assert got.details.index(sentence(got)) < len(got.details) - 1


@pytest.mark.parametrize(
    ("once", "twice", "words"),
    [
        ([(0.1, 0.1), (-0.1, 0.0)], [(0.1, 0.1), (-0.1, 0.0)], "every claim over scratch holds."),
        (
            [(0.1, 0.1), (0.0, 0.0)],
            [(0.1, 0.0), (0.0, 0.0)],
            "3 of 4 claims over scratch hold; from a starved budget: gain of multitask with 20 labels (+",
        ),
        (
            [(0.1, 0.1), (-0.1, -0.1)],
            [(-0.1, -0.2), (0.1, 0.1)],
            "no claim over scratch holds; from a starved budget: gain of multitask with 10 and 20 labels and "
            "harm by finetune with 10 and 20 labels (most multitask with 20 labels: +",
        ),
    ],
)
def test_whether_claims_hold_is_one_sentence(once, twice, words):
    assert f"scratch ×2) {words}" in sentence(told(once, twice))


def test_what_only_a_doubled_budget_shows():
    """With noise too great to show anything once, and none that matters twice."""
    values = crossed(np.full((6, 2), 0.7), noise=0.1)
    values[1] += np.random.default_rng(0).normal(0, 0.3, (2, 20, 1))
    values[4] += 0.1
    got = analyse(scores_of(values, REGIMES, SIZES, controls=DOUBLED), 200)
    assert {c.claim for c in got.cells["multitask"].values()} == {"inconclusive"}
    assert sentence(got).endswith(
        "every claim over scratch holds; shown only there: gain of multitask with 10 and 20 labels."
    )


def test_a_doubled_row_is_compared_with_the_doubled_baseline_and_is_no_contender():
    got = told([(0.1, 0.1), (0.1, 0.1)], [(0.3, 0.3), (0.1, 0.1)])
    values = got.scores.values
    assert got.cells["multitask@2"][10.0].gain == pytest.approx((values[4, 0] - values[3, 0]).mean())
    assert got.cells["scratch@2"][10.0].gain == pytest.approx((values[3, 0] - values[0, 0]).mean())
    assert got.cells["multitask@2"][10.0].mean > got.cells["multitask"][10.0].mean
    assert not any(got.cells[r][n].best or got.cells[r][n].not_worse for r in DOUBLED for n in SIZES)
    text = " ".join(got.details)
    assert "@2" not in text and "control" not in text
    assert re.search("best with 10 labels is one of (multitask or finetune|finetune or multitask)", text)
    names = [row[0].text + row[0].mark for row in result_table(got).rows]
    assert names == ["scratch", "multitask", "finetune", "scratch ×2°", "multitask ×2°", "finetune ×2°"]
    note = "×2: at a doubled budget of updates; gains are over scratch ×2, that of scratch ×2 over scratch."
    assert note in gain_table(got).footnotes
    assert {record["regime"] for record in result_table(got).records} == set(REGIMES)
    for write in FORMATS.values():
        assert "multitask" in write(tables_of([got]))
    html = page([got], title="t", provenance={}, trials=[], configs={}, command="mtl report")
    assert "multitask ×2" in html and "At a doubled budget" in html
    texts = [text.get_text() for text in figures.gain_figure(got).texts]
    assert any("gain over scratch (of ×2 over scratch ×2) in points" in text for text in texts)


def test_without_a_doubled_baseline_nothing_is_said_of_doubling():
    values = crossed(np.array([[0.7], [0.8], [0.9]]))
    got = analyse(scores_of(values, ("scratch", "multitask", "multitask@2"), (10.0,), controls=("multitask@2",)), 100)
    assert not any("doubled budget" in s for s in got.details)
    assert got.cells["multitask@2"][10.0].gain == pytest.approx((values[2] - values[0]).mean())


def test_harm_that_had_not_converged_may_be_a_matter_of_budget():
    late = np.zeros((6, 2), int)
    late[1] = 15
    values = crossed(0.7 + np.array([(0.0, 0.0), (-0.1, 0.1), (-0.1, -0.1)]))
    scores = scores_of(values, REGIMES[:3], SIZES, unconverged=late[:3])
    words = "Harm that may be a matter of budget, as training was not converged: multitask with 10 labels."
    assert words in analyse(scores, 200).details
    assert not any(
        s.startswith("Harm that may") for s in analyse(dataclasses.replace(scores, unconverged=None), 200).details
    )
    # Where a doubled budget was measured, that is the answer.
    got = told([(-0.1, 0.1), (-0.1, -0.1)], [(-0.1, 0.1), (-0.1, -0.1)], unconverged=late)
    assert not any(s.startswith("Harm that may") for s in got.details)


def test_several_targets_are_named_and_their_means_are_over_the_doubled_baseline():
    scores = []
    for k, (once, twice) in enumerate([(-0.1, 0.1), (0.1, 0.1)]):
        rates = 0.7 + np.array([[0.0], [once], [0.0], [0.05], [0.05 + twice], [0.05]])
        values = crossed(rates, seed=k)
        scores.append(scores_of(values, REGIMES, (10.0,), task="ab"[k], rows=np.arange(300), controls=DOUBLED))
    got = analyse_targets(scores, dict.fromkeys(REGIMES, 2), 200)
    (said,) = (s for s in got.details if s.startswith("At a doubled budget"))
    assert "3 of 4 claims over scratch hold; from a starved budget: harm by multitask on a with 10" in said
    gains = [(s.values[4, 0] - s.values[3, 0]).mean() for s in scores]
    mean = got.means["multitask@2"][10.0]
    assert mean.gain == pytest.approx(np.mean(gains)) and mean.gain_low < mean.gain < mean.gain_high
    base = [s.values[3, 0].mean() for s in scores]
    assert mean.delta == pytest.approx(100 * np.mean([g / b for g, b in zip(gains, base, strict=True)]))
    late = [dataclasses.replace(s, unconverged=np.full((6, 1), 20)) for s in scores]
    alone = [
        dataclasses.replace(
            s, regimes=s.regimes[:3], controls=(), values=s.values[:3],
            missing=s.missing[:3], failed=s.failed[:3], chosen=s.chosen[:3], unconverged=s.unconverged[:3],
        )
        for s in late
    ]  # fmt: skip
    told = analyse_targets(alone, dict.fromkeys(REGIMES[:3], 2), 200).details
    assert (
        told[-1] == "Harm that may be a matter of budget, as training was not converged: multitask on a with 10 labels."
    )


def test_where_nothing_is_claimed_nothing_can_change():
    values = crossed(np.full((6, 2), 0.7), noise=0.1)
    values[[1, 2, 4, 5]] += np.random.default_rng(0).normal(0, 0.3, (4, 2, 20, 1))
    got = analyse(scores_of(values, REGIMES, SIZES, controls=DOUBLED), 200)
    assert sentence(got).endswith("×2) no claim over scratch was made that could change.")


LEARNED = ("scratch", "multitask", "scratch@2", "multitask@2")
LATE = np.array([0.5, 2.0])  # Joint training needs four times the updates; both get as far in the end.


def trained(rng, budget):
    """0/1 scores of equal data after so many updates, and twice as many: what is missing falls with exp(−t / τ)."""
    missing = np.exp(-budget * np.array([[1], [2]]) / LATE).reshape(4, 1, 1, 1)
    right = null_study(rng, 4, np.array([1.0, 1.5]), 20, 200)
    late = (
        np.broadcast_to(missing > 0.05, (4, 2, 1, 1))[..., 0, 0] * 20
    )  # More is to come: best at the last evaluation.
    return scores_of(
        np.where(rng.random(right.shape) < missing, rng.random(right.shape) < 0.5, right),
        LEARNED, (10.0, 20.0), controls=LEARNED[2:], unconverged=late,
    )  # fmt: skip


def test_with_equal_data_and_a_sufficient_budget_no_false_harm_is_claimed():
    """At 5 % for a whole study, of 40 studies at most six may (more have a chance of 0.3 %)."""
    studies = [analyse(trained(np.random.default_rng(seed), 16.0), 100) for seed in range(40)]
    claims = [{got.cells[r][n].claim for r in ("multitask", "multitask@2") for n in (10.0, 20.0)} for got in studies]
    assert sum("harm" in c or "gain" in c for c in claims) <= 6
    said = [s for got in studies[:3] for s in (*got.verdict, *got.details)]
    assert not any("starved" in s or "may be a matter of budget" in s for s in said)


def test_harm_by_a_starved_budget_is_told_as_such():
    """The same truth, ended too early: with a doubled budget, and without."""
    scores = trained(np.random.default_rng(0), 3.0)
    got = analyse(scores, 200)
    assert {c.claim for c in got.cells["multitask"].values()} == {"harm"}
    assert {c.claim for c in got.cells["multitask@2"].values()} <= {"inconclusive", "equivalent"}
    assert "from a starved budget: harm by multitask with 10 and 20 labels" in sentence(got)
    alone = dataclasses.replace(
        scores, regimes=LEARNED[:2], controls=(),
        **{k: getattr(scores, k)[:2] for k in ("values", "missing", "failed", "chosen", "unconverged")},
    )  # fmt: skip
    words = "Harm that may be a matter of budget, as training was not converged: multitask with 10 and 20 labels."
    found = analyse(alone, 200)
    assert words in found.details
    assert found.verdict[1].endswith("; it had not converged, so a larger budget may change that.")
