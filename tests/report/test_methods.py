"""The paragraph for a paper: what it must say, and that all that it cites is listed."""

import dataclasses
import re

import numpy as np

from mtl.config import default, flatten
from mtl.report.analyse import analyse
from mtl.report.methods import methods
from mtl.report.targets import analyse_targets
from tests.report.studies import crossed, scores_of

RESULT = {
    "versions": {"jax": "0.10.2", "mtl": "0.1.0"},
    "cpu": "a fast one",
    "device": "cpu",
    "machine": "x86_64",
    "placement": "map",
}


def base():
    config = default()
    config.data.source, config.data.target = ("identity",), "even"
    return flatten(config)


def test_protocol_statistics_and_software_are_said_and_every_citation_is_listed():
    names = ("scratch", "lp_ft", "forest", "scratch@2")
    values = crossed(np.array([[0.6, 0.7], [0.7, 0.75], [0.65, 0.7], [0.6, 0.7]]))
    scores = scores_of(
        values, names, (20.0, 100.0), controls=("forest", "scratch@2"), task="even", notes=("Rates are tuned.",)
    )
    text = methods(analyse(scores, resamples=100), base(), [RESULT])
    for part in (
        "scratch, lp_ft (Kumar et al., 2022) and forest (Pedregosa et al., 2011) for the task even (source task: "
        "identity) with 20 and 100 labelled examples, in 20 replicates.",
        "scratch ×2 had a doubled budget of updates.",
        "Rates are tuned.",
        "accuracy with 95 % intervals from a two-way bootstrap over replicates and test examples (100 resamples",
        "within ±2.0 points",
        "mtl 0.1.0 (jax 0.10.2) on a fast one.",
    ):
        assert part in text, part
    body, listed = text.split("\n\n[", 1)
    cited = set(re.findall(r"[A-Z][A-Za-z.&\- ]+, (?:19|20)\d\d", body))
    assert cited and cited == set(re.findall(r"^\[?([^\]]+)\]", listed, flags=re.M))


def test_of_several_targets_the_family_and_the_means_are_said():
    rates = np.array([[0.6], [0.7]])
    each = [
        scores_of(crossed(rates, seed=k), ("scratch", "multitask"), task=task, rows=np.arange(300))
        for k, task in enumerate("ab")
    ]
    text = methods(analyse_targets(each, {"scratch": 2, "multitask": 1}, 100), base(), [RESULT])
    assert "for the 2 tasks a and b" in text and "over targets, regimes and sizes (Holm, 1979)" in text
    assert "[Maninis et al., 2019]" in text and "[Agarwal et al., 2021]" in text
    groups = dataclasses.replace(each[0], groups=np.arange(300) // 3)
    assert "groups of test examples" in methods(analyse(groups, resamples=100), base(), [RESULT])
