"""What the verdict says of twelve made-up outcomes, and whether a reader of it alone would do the right thing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mtl.hypothesis import Hypothesis
from mtl.report.analyse import analyse
from mtl.report.analysis import Cost
from mtl.report.show import print_analysis
from mtl.report.targets import analyse_targets

from .studies import crossed, scores_of

#: Operations of each row, in those of scratch.
OPERATIONS = {"linear_probe": 0.6, "finetune": 1.1, "multitask": 1.0, "forest": float("nan")}
THREE = ("scratch", "linear_probe", "multitask")


def cost(names):
    return {
        name: Cost(
            9600.0,
            1e9 * OPERATIONS.get(name, 1.0),
            0.1,
            9600.0 if name in ("linear_probe", "finetune") else 0.0,
            parameters=4e4,
        )
        for name in names
    }


def outcome(rates, names=THREE, noise=0.1, seed=0, sizes=(20.0, 100.0, 500.0), replicates=20, **changes):
    values = crossed(np.array(rates), replicates, noise=noise, seed=seed)
    return scores_of(values, names, sizes[: values.shape[1]], cost=cost(names), **changes)


def missing():
    scores = outcome([[0.6, 0.7, 0.8], [0.7, 0.8, 0.85], [0.65, 0.75, 0.84]])
    values = scores.values.copy()
    values[1, 0], values[:, 2] = np.nan, np.nan
    return scores_of(values, THREE, scores.sizes, cost=scores.cost)


def headless():
    scores = outcome([[0.7], [0.8]], ("finetune", "multitask"))
    return dataclasses.replace(scores, baseline="scratch")


def targets(gains):
    names = ("scratch", "multitask")
    each = [
        dataclasses.replace(outcome([[0.7], [0.7 + gain]], names, noise=0.2, seed=k), task=f"t{k}", rows=np.arange(300))
        for k, gain in enumerate(gains)
    ]
    return analyse_targets(each, {"scratch": len(gains), "multitask": 1}, 300)


OUTCOMES = {
    "clear gain, by different regimes": lambda: outcome([[0.6, 0.7, 0.8], [0.75, 0.76, 0.74], [0.65, 0.78, 0.85]]),
    "harm": lambda: outcome([[0.7, 0.8, 0.9], [0.6, 0.7, 0.8], [0.7, 0.75, 0.85]], noise=0.2),
    "harm everywhere": lambda: outcome([[0.7, 0.8, 0.9], [0.6, 0.7, 0.8], [0.65, 0.75, 0.85]]),
    "tie": lambda: outcome([[0.7, 0.8, 0.9]] * 3),
    "noise": lambda: outcome([[0.7, 0.8, 0.9], [0.71, 0.80, 0.9], [0.715, 0.8, 0.89]], noise=2.0, replicates=5),
    "crossing": lambda: outcome([[0.6, 0.7, 0.9], [0.7, 0.75, 0.8]], ("scratch", "linear_probe")),
    "one replicate": lambda: outcome([[0.6, 0.7, 0.8], [0.7, 0.8, 0.85], [0.65, 0.75, 0.84]], replicates=1),
    "missing cells": missing,
    "no baseline": headless,
    "below the margin": lambda: outcome([[0.7], [0.708]], ("scratch", "finetune"), noise=0.01),
    "a forest is better": lambda: outcome(
        [[0.6, 0.8], [0.7, 0.85], [0.8, 0.8]], ("scratch", "multitask", "forest"), controls=("forest",)
    ),
    "a starved budget": lambda: outcome(
        [[0.7, 0.8], [0.6, 0.8], [0.7, 0.8], [0.72, 0.8]],
        ("scratch", "multitask", "scratch@2", "multitask@2"),
        controls=("scratch@2", "multitask@2"),
    ),
    "hypothesis": lambda: outcome(
        [[0.6, 0.7], [0.65, 0.7]],
        ("scratch", "multitask"),
        hypothesis=Hypothesis("multitask", "scratch", (), "upper <= margin"),
    ),
    "log loss": lambda: outcome(
        [[0.7, 0.5], [0.6, 0.5]], ("scratch", "finetune"), metric="log_loss", unit=1.0, higher_is_better=False
    ),
    "12": lambda: targets([0.03] * 7 + [0.0] * 4 + [-0.05]),
}

#: What is said of each; read by itself, and judged by whether a colleague would do the right thing.
WORDS = {
    "clear gain, by different regimes": (
        "Use linear_probe with 20 labels (+15.0 points [14.4, 15.7] over scratch) and multitask with 100 and "
        "500 labels (most with 100 labels: +8.2 points [7.4, 9.0]).",
        "Avoid linear_probe with 500 labels: worse than scratch (−6.5 points [−7.8, −5.5]).",
        "Joint training beats every transfer regime with 100 and 500 labels; transfer beats every joint "
        "regime with 20 labels.",
    ),
    "harm": (
        "Use scratch with 20 to 500 labels (no regime is shown to beat it).",
        "Avoid linear_probe with 20 to 500 labels and multitask with 100 and 500 labels: worse than scratch "
        "(most linear_probe with 500 labels: −10.7 points [−12.3, −9.4]).",
    ),
    "harm everywhere": (
        "Use scratch with 20 to 500 labels (no regime is shown to beat it).",
        "Avoid linear_probe and multitask with 20 to 500 labels: worse than scratch (most linear_probe with "
        "500 labels: −10.5 points [−11.8, −9.5]).",
    ),
    "tie": (
        "Use linear_probe with 20 to 500 labels (as good as scratch within 2.0 points, at 0.6× the operations).",
        "Neither joint training nor transfer is shown to be better than the other with 20 to 500 labels.",
    ),
    "noise": (
        "With 20 to 500 labels it is open whether a regime beats scratch (most multitask +8.3 points [−11.0, "
        "29.6], p = 1.00).",
        "Neither joint training nor transfer is shown to be better than the other with 20 to 500 labels.",
        "To settle it with 100 labels, multitask against scratch: about 49 more replicates.",
    ),
    "crossing": (
        "Use linear_probe with 20 and 100 labels (most with 20 labels: +10.0 points [9.3, 10.7] over scratch)"
        " and scratch with 500 labels (no regime is shown to beat it).",
        "Avoid linear_probe with 500 labels: worse than scratch (−10.5 points [−11.5, −9.5]).",
    ),
    "one replicate": (
        "Inconclusive: one replicate cannot tell a regime's gain over scratch from the luck of a draw; the "
        "greatest gain observed, +14.2 points [12.7, 15.9] by linear_probe with 20 labels, has an interval "
        "over test examples only.",
    ),
    "missing cells": (
        "Use multitask with 20 labels (+4.8 points [4.0, 5.5] over scratch) and linear_probe with 100 labels "
        "(+10.5 points [9.8, 11.3]).",
        "Transfer beats every joint regime with 100 labels.",
    ),
    "no baseline": (
        "scratch, the baseline, was not measured, so no gain over it can be stated; best with 20 labels is multitask.",
    ),
    "below the margin": (
        "Use finetune with 20 labels (+1.1 points [0.5, 1.8] over scratch, less than the margin of 2.0 points).",
    ),
    "a forest is better": (
        "Use forest, without a network, with 20 labels (+20.0 points [19.0, 21.0] over scratch) and multitask"
        " with 100 labels (+4.7 points [3.9, 5.5]).",
    ),
    "a starved budget": (
        "Use scratch with 20 and 100 labels (no regime is shown to beat it).",
        "Avoid multitask with 20 labels: worse than scratch (−10.4 points [−11.2, −9.6]).",
        "Beware of a starved budget: at a doubled one 1 of 2 claims over scratch does not hold (multitask "
        "with 20 labels: −10.4, there +1.3 points [0.3, 2.3]).",
    ),
    "hypothesis": (
        "Stated beforehand: multitask gains more than 2.0 points over scratch (refuted by: upper <= margin). "
        "It holds with 20 labels (+4.6 points [3.7, 5.5]) and is refuted with 100 labels (−0.3 points [−1.3, "
        "0.6]); intervals of 95 % for the 2 sizes together.",
        "Use multitask with 20 labels (+4.6 points [3.8, 5.4] over scratch) and scratch with 100 labels (no "
        "regime is shown to beat it).",
    ),
    "log loss": (
        "Use finetune with 20 labels (+0.104 [0.096, 0.112] in log_loss over scratch) and scratch with 100 "
        "labels (no regime is shown to beat it).",
    ),
    "12": (
        "For all 12 targets together use multitask with 20 labels (+1.3 points [1.0, 1.7] over scratch, less "
        "than the margin of 2.0 points).",
        "Of single targets multitask is shown better on 7 of 12 and worse on t11.",
        "One network for all targets takes 0.083× the operations and 0.083× the parameters of 12 networks.",
    ),
}


def analysed(made):
    return made if hasattr(made, "of") else analyse(made, resamples=300)


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_is_said_of_an_outcome(name):
    found = analysed(OUTCOMES[name]())
    assert found.verdict == WORDS[name]
    assert len(found.verdict) <= 3 and len(" ".join(found.verdict).split()) <= 90
    for sentence in found.verdict:
        assert sentence.endswith(".") and "nan" not in sentence and "  " not in sentence


@pytest.mark.parametrize("name", OUTCOMES)
def test_the_console_shows_it_on_forty_lines_of_eighty_columns(name, capsys):
    found = analysed(OUTCOMES[name]())
    print_analysis(found, width=80)
    printed = capsys.readouterr().out.rstrip("\n").splitlines()
    assert len(printed) <= 40 and max(map(len, printed)) <= 80
    text = " ".join(" ".join(printed).split())
    assert all(sentence in text for sentence in found.verdict)
    assert "mtl table --full" in text


def test_what_to_do_is_in_the_set_of_the_best_and_never_shown_to_do_harm():
    rng = np.random.default_rng(0)
    for seed in range(30):
        scores = outcome(rng.uniform(0.6, 0.75, (3, 2)), noise=1.0, seed=seed, sizes=(20.0, 100.0))
        found = analyse(scores, resamples=100)
        for d in found.decisions:
            cells = {r: found.cells[r][d.size] for r in scores.regimes}
            assert cells[d.do].not_worse and cells[d.do].claim != "harm"
            gains = [r for r, c in cells.items() if c.not_worse and c.claim == "gain"]
            assert d.do in gains or not gains
            assert (d.claim == "gain") == (d.p <= 0.05 and d.gain > 0)
            assert set(d.also) == {r for r, c in cells.items() if c.not_worse and c.claim != "harm"} - {d.do}
            assert set(d.harm) == {r for r, c in cells.items() if c.claim == "harm"}


def test_of_equally_good_rows_the_cheapest_is_named_and_without_costs_the_best():
    scores = outcome([[0.6], [0.8], [0.805]], ("scratch", "linear_probe", "finetune"), sizes=(20.0,))
    (d,) = analyse(scores, resamples=100).decisions
    assert (d.do, d.also, round(d.operations, 2)) == ("linear_probe", ("finetune",), 0.6)
    (d,) = analyse(dataclasses.replace(scores, cost={}), resamples=100).decisions
    assert d.do == "finetune" and np.isnan(d.operations)


def test_a_mean_over_targets_of_one_is_that_target():
    (scores,) = (dataclasses.replace(outcome([[0.7], [0.8]], ("scratch", "multitask")), task="a", rows=np.arange(300)),)
    found, alone = analyse_targets([scores], {"scratch": 1, "multitask": 1}, 300), analyse(scores, resamples=300)
    (d,), (own,) = found.decisions, alone.decisions
    assert (d.do, d.claim, d.also) == (own.do, own.claim, own.also)
    assert d.gain == pytest.approx(own.gain) and d.p == pytest.approx(own.p)


def test_targets_of_different_metrics_are_advised_one_by_one():
    names = ("scratch", "multitask")
    each = [
        dataclasses.replace(outcome([[0.7], [0.8]], names, seed=0), task="a", rows=np.arange(300)),
        dataclasses.replace(
            outcome([[0.7], [0.8]], names, seed=1, metric="log_loss", unit=1.0, higher_is_better=False),
            task="b",
            rows=np.arange(300),
        ),
    ]
    found = analyse_targets(each, {"scratch": 2, "multitask": 1}, 200)
    assert not found.decisions
    assert found.verdict[0] == "Use with 20 labels multitask for a and scratch for b."
