"""Hidden labels never reach a gradient, and the addresses of phases follow what is hidden from them."""

import dataclasses

import numpy as np
import pytest

from mtl import data
from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.data import make_table
from mtl.data.corrupt.split import corrupt
from mtl.report.analyse import analyse
from mtl.report.collect import collect
from mtl.report.tables import result_table
from mtl.sweep import product, sweep
from mtl.sweep.launch import Silent, launch
from mtl.sweep.plan import data_warnings, load_table, make_plan, split_of, trial_of
from mtl.sweep.store import Workdir
from mtl.sweep.study import settle
from mtl.tasks import Task
from mtl.train.dataset import make_data
from tests.train.build import BASE, VAL_ROWS, run_all, same, stages, table, trial
from tests.train.build import split_of as plain_split

HIDING = {
    "at_random": {"hide": "at_random", "hide_rates": {"kind": 0.5, "rare": 0.3, "goal": 0.3}},
    "one_task_each": {"hide": "one_task_each", "hide_rate": 1.0},
    "by_class": {"hide": "by_class", "hide_rates": {"goal": (0.0, 0.7)}},
}


def data_of(t, split):
    return make_data(table(), [split], [s.program for s in stages(t)], VAL_ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("way", HIDING)
def test_the_value_of_a_hidden_label_changes_no_bit(way):
    t = trial(regime="multitask", joint_sampling="rows", loss__denominator="labels")
    whole = plain_split(t)
    poor = corrupt(whole, table(), t.seed, **HIDING[way])
    other = {}
    for task, labels in poor.labels.items():
        gone = whole.train[task] & ~poor.train[task]
        worse = (labels + 1) % (3 if task == "kind" else 2)
        other[task] = np.where(gone, worse, labels).astype(labels.dtype)
    assert any((other[task] != poor.labels[task]).any() for task in other)
    _, _, _, first = run_all(t, data_of(t, poor))
    _, _, _, second = run_all(t, data_of(t, dataclasses.replace(poor, labels=other)))
    assert same([o.weights for o in first], [o.weights for o in second])
    # The same change to labels that are there is seen.
    _, _, _, third = run_all(t, data_of(t, dataclasses.replace(whole, labels=other)))
    _, _, _, fourth = run_all(t, data_of(t, whole))
    assert not same([o.weights for o in third], [o.weights for o in fourth])


STUDY = override(
    flatten(default()),
    {"data.source": ("identity", "prime"), "source.total_steps": 4, "target.total_steps": 4, "regime": "finetune"},
)


def plan_of(**changes):
    flat = override(STUDY, {f"data.{k}": v for k, v in changes.items()})
    one = resolve(flat, load_table("digits", {}))
    plan = make_plan([one])
    return one, plan.chains[one.hash]


def test_addresses_follow_what_a_phase_sees():
    _, plain = plan_of()
    _, target = plan_of(hide="at_random", hide_rates={"even": 0.5})
    _, source = plan_of(hide="at_random", hide_rates={"prime": 0.5})
    _, noise = plan_of(label_noise={"even": 0.2}, hide_in_validation=True)
    assert plain[0] == target[0] == noise[0] != source[0]
    assert len({plain[1], target[1], source[1], noise[1]}) == 4
    # Inputs are scaled by the rows of the target's pool too, labelled or not, so labels do not move the source phase.
    _, one = plan_of(normalize="standardize")
    _, two = plan_of(normalize="standardize", hide="at_random", hide_rates={"even": 0.5})
    _, fewer = plan_of(normalize="standardize", target_size=20)
    _, others = plan_of(normalize="standardize", val_fraction=0.4)
    assert one[0] == two[0] == fewer[0] != others[0]
    assert plan_of(val_fraction=0.4)[1][0] == plain[0]


def test_a_trials_split_is_corrupted_by_its_own_seed_in_its_training_labels():
    for seed in (0, 1):
        fields = {"seed": seed, "data.hide": "at_random", "data.hide_rate": 0.5, "data.label_noise": {"prime": 0.2}}
        one = resolve(override(STUDY, fields), load_table("digits", {}))
        whole = split_of(resolve(override(STUDY, {"seed": seed}), load_table("digits", {})))
        rates = dict.fromkeys(("identity", "prime", "even"), 0.5)
        expected = corrupt(
            whole, load_table("digits", {}), seed, hide="at_random", hide_rates=rates, label_noise={"prime": 0.2}
        )
        assert split_of(one).sha256 == expected.sha256 != whole.sha256
        assert np.array_equal(split_of(one).test["even"], whole.test["even"])


def test_a_task_without_a_label_left_is_told_before_anything_is_compiled():
    with pytest.raises(ConfigError, match=r'^config.data: task "prime": none of its 700 training labels is left'):
        plan_of(hide="at_random", hide_rates={"prime": 1.0})


def test_a_sweep_is_about_one_rate():
    base = override(BASE, {"data.hide": "at_random"})
    entries = [{"data.hide_rate": r, "seed": 0} for r in (0.1, 0.5)]
    with pytest.raises(ConfigError, match=r"the sweep changes data.hide_rate between trials"):
        settle(base, entries)
    settled, left = settle(base, [{"data.hide_rate": 0.5, "seed": s} for s in range(2)])
    assert settled["data.hide_rate"] == 0.5 and left == [{"seed": 0}, {"seed": 1}]
    settled, _ = settle(base, [{"data.hide_rates.kind": 0.5, "seed": s} for s in range(2)])
    assert settled["data.hide_rates"] == {"kind": 0.5}


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.mark.slow
def test_what_is_hidden_and_what_is_copied_stands_under_the_table(tmp_path):
    @data.register("copied")
    def copied():
        x = np.repeat(np.random.default_rng(0).normal(size=(100, 3)), 2, axis=0)
        y = (x[:, 0] > 0) * 1.0
        return make_table("copied", x, [Task("a", "binary"), Task("b", "binary")], {"a": y, "b": 1 - y})

    sizes = {"data.test_size": 50, "data.target_pool": 50, "data.target_size": 40, "data.source_size": 50}
    names = {"name": "twice", "data.name": "copied", "data.source": ("a",), "data.target": "b", "regime": "scratch"}
    base = override(STUDY, {**names, **sizes, "data.source_val_size": 10, "evaluations": 1})
    whole = sweep("seed", range(2))
    half = product(whole, sweep("data.hide", ("at_random",)), sweep("data.hide_rate", (0.5,)))
    workdir, heard = Workdir(tmp_path / "work"), Heard()
    done = launch(base, {"whole": whole, "half": half}, workdir, jobs=0, config_file=None, display=heard)
    scaled = product(sweep("regime", ("scratch", "scratch_own_scale")), whole)  # Otherwise, on the same splits.
    (counted,) = data_warnings([trial_of(override(base, changes)) for changes in scaled])
    data.SOURCES.pop("copied")
    assert [(s.ran, s.failed) for s in done] == [(2, {}), (2, {})]
    assert counted.startswith("in 2 of 2 splits, at most")

    said = [line for line in heard.lines if line.startswith("whole: warning: in 2 of 2 splits, at most")]
    assert len(said) == 1 and "of 50 test inputs of copied are copies of inputs that training" in said[0]
    warned = f"Warning: {said[0].removeprefix('whole: warning: ')}"
    scores = collect(workdir, "whole")
    assert scores.data_notes == (warned,)
    assert warned in result_table(analyse(scores, resamples=50)).footnotes
    hidden, _ = collect(workdir, "half").data_notes
    assert hidden.startswith("Training labels hidden at random: a 0.5, b 0.5; n counts labels before that, and val")
