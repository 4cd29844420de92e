"""Several looks at a test set: corrected p values against other code, when a study stops, and how often it is wrong."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from mtl.report import efficiency, looks, settle, statistics
from mtl.report.analyse import analyse
from mtl.report.analysis import Scores
from tests.report.studies import crossed, scores_of

LOOKS = (5, 10, 20, 40)


@pytest.mark.parametrize("times", [1, 4])
def test_each_look_spends_an_equal_part_of_the_level(times):
    p = np.random.default_rng(0).uniform(0, 0.03, 9)
    ours = statistics.holm(p, times)
    assert ours == pytest.approx(np.minimum(times * multipletests(p, method="holm")[1], 1))
    # At 5 % of p values that are multiplied, as at an equal part of 5 % of those that are not.
    assert ((ours <= 0.05) == multipletests(p, alpha=0.05 / times, method="holm")[0]).all()


def test_claims_intervals_and_power_go_by_the_looks():
    values = crossed(np.array([[0.8], [0.82], [0.79]]), replicates=10)
    once, often = (analyse(scores_of(values, ("scratch", "a", "b"), looks=n), 2000) for n in (1, 4))
    for name in ("a", "b"):
        one, other = once.cells[name][10.0], often.cells[name][10.0]
        assert other.p_holm == pytest.approx(min(4 * one.p_holm, 1)) and other.p == one.p
        assert other.p_margin_holm == pytest.approx(min(4 * one.p_margin_holm, 1))
        # The interval of a gain is Student's of 1 − 5 %/4, in the shape of the draws.
        _, _, df, _ = statistics.two_way_error(values[1:2, 0] - values[:1, 0])
        wider = stats.t.ppf(1 - 0.0125 / 2, df) / stats.t.ppf(0.975, df)
        assert (other.gain_high - other.gain_low) / (one.gain_high - one.gain_low) == pytest.approx(wider, rel=0.1)
        assert often.power[name][10.0].level == pytest.approx(once.power[name][10.0].level / 4)
    assert "4 looks" in often.details[-1] and "4 looks" not in once.details[-1]


def study(truth, seed=0, replicates=LOOKS[-1], examples=150, spread=(0.01, 0.05, 0.2), **changes):
    """Scores of regimes of true means ``truth``: replicates and test rows move all together, and each by itself."""
    rng, (of_replicates, of_rows, noise), g = np.random.default_rng(seed), spread, len(truth)
    together = rng.normal(0, 0.02, (replicates, 1)) + rng.normal(0, 0.3, examples)
    own = rng.normal(0, of_replicates, (g, replicates, 1)) + rng.normal(0, of_rows, (g, 1, examples))
    values = np.array(truth)[:, None, None] + together + own + rng.normal(0, noise, (g, replicates, examples))
    names = changes.pop("names", ("scratch", "a", "b", "forest")[:g])
    controls = tuple(name for name in names if name == "forest")
    return scores_of(values[:, None], names, (100.0,), looks=len(LOOKS), controls=controls, **changes)


def at(scores: Scores, replicates: int) -> Scores:
    """The scores of a study's first replicates."""
    parts = {"values": scores.values[:, :, :replicates], "chosen": scores.chosen[:, :, :replicates]}
    return dataclasses.replace(scores, replicates=scores.replicates[:replicates], **parts)


def told(scores, rows=500):
    found = analyse(scores, 100)
    return looks.state(found, LOOKS[-1]), looks.conclusion(found, rows, LOOKS[-1])


def test_a_gain_that_is_shown_settles_it():
    state, said = told(at(study([0.8, 0.9, 0.8]), 10))
    assert state == looks.SETTLED and said.startswith("Do a: +") and said.endswith("over scratch.")


def test_nothing_to_be_gained_settles_it_once_every_rival_is_told_from_the_margin():
    quiet = (0.001, 0.01, 0.02)
    state, said = told(study([0.8, 0.8, 0.7, 0.8], spread=quiet))
    assert state == looks.SETTLED and "b is worse" in said and "within" in said and said.startswith("Do ")
    assert told(study([0.8, 0.8, 0.8], spread=(0.05, 0.01, 0.02), replicates=5))[0] != looks.SETTLED


def test_where_rows_are_too_few_no_replicates_help_and_labels_are_asked_for():
    state, said = told(study([0.8, 0.81], spread=(0.001, 0.5, 0.01)), rows=500)
    assert state == looks.FUTILE
    assert said.startswith("Cannot tell with these labels whether a is better than scratch (") and "more would" in said
    power = analyse(study([0.8, 0.81], spread=(0.001, 0.5, 0.01)), 100).power["a"][100.0]
    assert power.replicates_needed == math.inf
    if math.isfinite(power.examples_needed):  # All rows grow as the test rows do.
        more = (power.examples_needed / power.examples - 1) * 500
        assert f"about {float(f'{more:.1e}'):,.0f} more would" in said


def test_where_replicates_would_tell_it_goes_on():
    state, said = told(at(study([0.8, 0.815], seed=3, spread=(0.02, 0.001, 0.05)), 5))
    assert state == looks.OPEN and "Cannot tell yet" in said and "more replicates would" in said


def test_with_nothing_to_transfer_from_a_model_without_a_network_may_be_what_to_do():
    quiet = (0.005, 0.02, 0.05)
    better = study([0.8, 0.85], names=("scratch", "forest"), spread=quiet)
    assert looks.rivals(better) == ("forest",)
    state, said = told(better)
    assert state == looks.SETTLED and said.startswith("Do forest, without a network: +")
    state, said = told(study([0.8, 0.7], names=("scratch", "forest"), spread=quiet))
    assert state == looks.SETTLED and said == "Do scratch: forest is worse."


def stopped(scores):
    """Look as a comparison does; return the analysis of the look at which it stops."""
    for replicates in LOOKS:
        found = analyse(at(scores, replicates), 20)
        if looks.state(found, LOOKS[-1]) != looks.OPEN:
            break
    return found


@pytest.fixture
def claims_alone(monkeypatch):
    """Leave out power, so that no study stops for futility, which makes claims rarer only; and worth in labels."""
    monkeypatch.setattr(settle, "powers", lambda *_a, **_k: {})
    monkeypatch.setattr(efficiency, "worth", lambda *_a, **_k: ({}, {}))


@pytest.mark.slow
@pytest.mark.usefixtures("claims_alone")
@pytest.mark.parametrize("truth", [(0.8, 0.8, 0.8, 0.8), (0.8, 0.83, 0.77, 0.8)], ids=["nothing", "an effect"])
def test_of_1000_studies_5_percent_decide_wrongly(truth):
    studies, wrong, settled = 1000, 0, 0
    for seed in range(studies):
        found = stopped(study(truth, seed))
        claims = {name: found.cells[name][100.0].claim for name in found.scores.regimes}
        off = {name: value - truth[0] for name, value in zip(found.scores.regimes, truth, strict=True)}
        do = looks.advised(found)
        false = [n for n, c in claims.items() if (c == "gain" and off[n] <= 0) or (c == "harm" and off[n] >= 0)]
        far = [n for n, c in claims.items() if c == "equivalent" and abs(off[n]) > found.scores.margin]
        worse = claims[do] == "gain" and off[do] <= 0
        wrong += bool(false or far or worse)
        settled += looks.state(found, LOOKS[-1]) == looks.SETTLED
    print(f"{wrong} of {studies} studies decide wrongly, {settled} are settled")
    assert wrong <= stats.binom.ppf(0.98, studies, 0.05)
