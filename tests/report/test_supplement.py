import numpy as np

from mtl.data import digits_table
from mtl.data.describe import facts
from mtl.regimes import REGIMES, Phase
from mtl.report.analyse import analyse
from mtl.report.data_words import data_sentence, data_table, data_warnings
from mtl.report.made_by import made_sentence
from mtl.report.other_metrics import other_metrics_table
from mtl.report.picked import Picked
from mtl.report.regime_words import phase_words, regime_lines
from tests.report.studies import crossed, scores_of


def test_the_data_are_described_from_what_a_study_holds():
    table = digits_table()
    known = facts(table)
    said = data_sentence(known, ["even"], ["identity"])
    positives = int(np.nansum(table.labels["even"]))
    for word in ("digits", f"{len(table):,} rows", "even (binary)", f"{positives:,} positive", "Source: identity."):
        assert word in said
    made = data_table(known, ["even"], ["identity"])
    assert [row[0].text for row in made.rows[:2]] == ["even", "identity"]
    assert [row[2].text for row in made.rows[:3]] == ["target", "source", "—"]
    assert not data_warnings(known)
    twice = known | {"duplicates": {"rows": 3, "sets": 2, "conflicts": {"even": 1}}}
    (warning,) = data_warnings(twice)
    assert warning.startswith(f"3 of {len(table):,} rows repeat") and "even 1" in warning and "may part them" in warning
    assert "groups keep copies" in data_warnings(twice | {"groups": 5})[0]


def test_hundreds_of_targets_are_one_sentence_and_a_short_table():
    known = facts(digits_table())
    tasks = [known["tasks"][0] | {"name": f"t{k}", "labels": k + 1, "missing": k / 617} for k in range(617)]
    known |= {"tasks": tasks}
    names = [task["name"] for task in tasks]
    said = data_sentence(known, names, [])
    assert "617 targets" in said and "1 to 617 labels each" in said and "49.9 % of labels are missing" in said
    assert len(data_table(known, names, []).rows) == 20


def test_each_regime_has_a_line():
    lines = regime_lines([*REGIMES, "scratch@2", "mine", "theirs"], {"mine": ({"trainable": "head"}, Phase())},
                         {"theirs": [{"tasks": ["even"], "trainable": "last_1"}]})  # fmt: skip
    assert lines["finetune"] == REGIMES["finetune"].summary
    assert lines["scratch ×2"].endswith("; 2 times the budget")
    assert lines["mine"] == "target: the head; then target: everything"
    assert lines["theirs"] == "even: the head and the last 1 block"
    assert "by ridge" in phase_words([{"solver": "ridge"}]) and "adapter lora" in phase_words([{"adapt": ("lora", {})}])


def test_other_metrics_are_means_over_replicates():
    analysis = analyse(scores_of(crossed(np.full((2, 1), 0.7), 3, 20), ("scratch", "b"), task="t"), 20)

    def trial(row, seed, accuracy, auroc):
        return Picked(row, 10.0, seed, "", "", {"test": {"t": {"accuracy": accuracy, "auroc": auroc}}})

    trials = [trial("scratch", 0, 0.5, 0.6), trial("scratch", 1, 0.7, None), trial("b", 0, 0.9, 0.95)]
    table = other_metrics_table(analysis, trials)
    assert table.header == ("regime", "accuracy", "AUROC")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["scratch", "0.600", "0.600"],
        ["b", "0.900", "0.950"],
    ]
    assert any("is defined" in note for note in table.footnotes)
    assert other_metrics_table(analysis, []) is None


def test_when_and_by_what_is_one_sentence():
    result = {"versions": {"python": "3.11.7", "jax": "0.10.2"}, "cpu": "AMD EPYC", "device": "cpu"}
    result |= {"machine": "x86_64", "placement": "map", "finished": "2026-11-29T21:46:10+00:00"}
    other = result | {"cpu": "slow", "finished": "2026-11-30T01:00:00+00:00"}
    said = made_sentence([result, result, other])
    assert said.startswith("Trained from 2026-11-29 to 2026-11-30 on AMD EPYC") and "and others" in said
    assert "Python 3.11.7, JAX 0.10.2" in said
    assert made_sentence([]) == ""
