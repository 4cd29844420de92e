import dataclasses

import numpy as np
import pytest

from mtl.report.alt import forest_alt
from mtl.report.figures import save
from mtl.report.forest import CLAIMS, NAMED, forest_figure
from mtl.report.targets import analyse_targets
from tests.report.studies import crossed, scores_of

REGIMES = ("scratch", "multitask")
CLAIMED = ("gain", "harm", "equivalent", "inconclusive")


def many(count):
    """Targets of made-up gains, each claim in turn."""
    scores = scores_of(crossed(np.array([[0.7], [0.75]]), replicates=4, examples=20), REGIMES, task="a")
    made = analyse_targets([dataclasses.replace(scores, rows=np.arange(20))], {"scratch": 1, "multitask": 1}, 50)
    first, rng, of = made.of["a"], np.random.default_rng(0), {}
    for k in range(count):
        gain = float(rng.normal(0.01, 0.03))
        cell = dataclasses.replace(
            first.cells["multitask"][10.0], gain=gain, gain_low=gain - 0.02, gain_high=gain + 0.03, claim=CLAIMED[k % 4]
        )
        of[f"task_{k}"] = dataclasses.replace(first, cells=first.cells | {"multitask": {10.0: cell}})
    return dataclasses.replace(made, of=of)


def gains(targets):
    return np.array([100 * a.cells["multitask"][10.0].gain for a in targets.of.values()])


def test_few_targets_have_a_row_each_and_their_mean():
    targets = many(12)
    (axes,) = forest_figure(targets).axes
    assert [t.get_text() for t in axes.get_yticklabels()] == [*targets.of, "mean"]
    dots = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() in "oD"]
    np.testing.assert_allclose(dots, [*gains(targets), 100 * targets.means["multitask"][10.0].gain])
    filled = [line.get_markerfacecolor() != "white" for line in axes.lines if line.get_marker() == "o"]
    assert filled == [k % 4 < 2 for k in range(12)]


@pytest.fixture(scope="module")
def hundreds():
    targets = many(617)
    return targets, forest_figure(targets)


def test_hundreds_are_sorted_coloured_by_claim_and_five_are_named(hundreds):
    targets, figure = hundreds
    (axes,) = figure.axes
    assert len(targets.of) > NAMED
    (line,) = [line for line in axes.lines if line.get_label() == "multitask"]
    np.testing.assert_allclose(line.get_ydata(), np.sort(gains(targets)))
    for k, claim in enumerate(CLAIMED):
        (bars,) = [line for line in axes.lines if line.get_color() == CLAIMS[claim]]
        drawn = bars.get_ydata()[np.isfinite(bars.get_ydata())].reshape(-1, 2)
        np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(gains(targets)[k::4] - 2.0))
    names = np.array(list(targets.of))
    extreme = set(names[np.argsort(-np.abs(gains(targets)))[:5]])
    assert {text.get_text() for text in axes.texts} == extreme
    assert axes.get_title(loc="right") == "155 better, 154 worse of 617"


def test_hundreds_are_small_in_a_page(hundreds, tmp_path):
    (file,) = save(hundreds[1], tmp_path / "f.svg")
    assert file.stat().st_size < 200_000


def test_what_it_shows_in_a_sentence(hundreds):
    targets, _ = hundreds
    said = forest_alt(targets)
    assert "each of 617 targets at n = 10" in said
    assert "multitask better on 155, worse on 154, on average +" in said
