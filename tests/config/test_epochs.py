"""Epochs: steps times the batch are the rows that the real split has, however it is rounded, hidden or named."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mtl import data
from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.config.fields import KNOWN
from mtl.regimes import Phase
from mtl.sweep.plan import make_plan, split_of
from mtl.tasks import Task
from mtl.train.trial import most_labels


@pytest.fixture(scope="module", autouse=True)
def counted():
    """400 rows: two sources, each of which misses labels, and a target."""

    @data.register("counted")
    def table():
        rng = np.random.default_rng(0)
        x, score = rng.normal(size=(400, 3)), rng.normal(size=(3, 400)) > 0
        labels = {
            n: np.where(rng.random(400) < p, score[i], np.nan)
            for i, (n, p) in enumerate({"a": 0.3, "b": 0.6, "t": 0.9}.items())
        }
        return data.make_table("counted", x, [Task(n, "binary") for n in labels], labels)

    yield table
    del data.SOURCES["counted"]


BASE = {
    "data.name": "counted", "data.source": ("a", "b"), "data.target": "t", "data.target_size": 40, "data.test_size": 50,
    "data.target_pool": 120, "data.source_size": 90, "data.source_val_size": 10, "source.total_steps": 1,
    "target.total_steps": 1, "model.options": {"hidden": (4,)},
}  # fmt: skip


def trial_of(**changes):
    flat = override(override(KNOWN, BASE), {k.replace("__", "."): v for k, v in changes.items()})
    return resolve(flat, data.load(flat["data.name"]))


def rows(trial, tasks):
    """Rows of the split with a training label of any of the tasks, counted one by one."""
    split = split_of(trial)
    return sum(any(split.train[t][i] for t in tasks) for i in range(400))


@settings(max_examples=40)
@given(
    st.integers(2, 60), st.floats(0.01, 0.99), st.integers(2, 90), st.floats(0.1, 9.0), st.integers(1, 40), st.data()
)
def test_an_epoch_is_the_rows_of_the_split(n, fraction, source, epochs, batch, draw):
    val = math.floor(fraction * n + 0.5)
    if not 1 <= val < n:
        return
    tasks = draw.draw(st.sampled_from([("a",), ("b",), ("a", "b"), ("t",), ("a", "t"), ("a", "b", "t")]))
    hidden = draw.draw(st.sampled_from([{}, {"data__hide": "at_random", "data__hide_rate": 0.3}]))
    changes = dict(
        data__target_size=n, data__val_fraction=fraction, data__source_size=source, data__source_val_size=1,
        batch_size=batch, regime="mine",
        regimes={"mine": (Phase(tasks=tasks, total_epochs=epochs, sampling="uniform"),)},
        **hidden,
    )  # fmt: skip
    try:
        split_of(trial_of(**{**changes, "regimes": {"mine": (Phase(tasks=tasks, total_steps=1),)}}))
    except ConfigError:  # So few rows, or so many hidden, that a task is left without a label.
        assume(False)
    trial = trial_of(**changes)
    assert trial.phases[0].total_steps == max(1, math.floor(epochs * rows(trial, tasks) / batch + 0.5))


@settings(max_examples=40)
@given(st.integers(2, 60), st.floats(0.01, 0.99), st.floats(0.1, 9.0))
def test_budgets_and_plans_count_the_same_rows(n, fraction, epochs):
    if not 1 <= math.floor(fraction * n + 0.5) < n:
        return
    trial = trial_of(
        data__target_size=n, data__val_fraction=fraction, source__total_steps=0, target__total_steps=0, batch_size=7,
        source__total_epochs=epochs, target__total_epochs=2 * epochs, regime="finetune",
    )  # fmt: skip
    counts = rows(trial, ("a", "b")), rows(trial, ("t",))
    assert (most_labels(trial, ("a", "b")), most_labels(trial, ("t",))) == counts
    examples = epochs * counts[0], 2 * epochs * counts[1]
    assert [p.total_steps for p in trial.phases] == [max(1, math.floor(e / 7 + 0.5)) for e in examples]


def test_half_a_label_is_the_same_half_everywhere():
    """A quarter of 10 is 2.5: the split takes 3 to validate, and an epoch is the other 7."""
    trial = trial_of(
        data__target_size=10, data__val_fraction=0.25, target__total_steps=0, target__total_epochs=1.0, batch_size=1,
        regime="finetune",
    )  # fmt: skip
    assert trial.phases[1].total_steps == rows(trial, ("t",)) == 7


# --- no source ---

ALONE = {"data__source": (), "source__total_steps": 0}


@pytest.mark.parametrize("regime", ["scratch", "random_probe", "scratch@2"])
def test_without_a_source_what_needs_none_runs(regime):
    trials = [trial_of(**ALONE, regime=regime, data__source_size=s, data__source_val_size=0) for s in (0, 797)]
    assert len({t.hash for t in trials}) == 1
    make_plan(trials)
    split = split_of(trials[0])
    assert set(split.train) == {"t"}
    assert split.train["t"].sum() + split.val["t"].sum() == 40
    beside = split_of(trial_of(regime="scratch"))
    for role in ("train", "val", "test"):  # The target's rows do not depend on the sources.
        assert np.array_equal(getattr(split, role)["t"], getattr(beside, role)["t"])


@pytest.mark.parametrize("size", [0, 797])
@pytest.mark.parametrize("regime", ["finetune", "multitask", "linear_probe", "source"])
def test_without_a_source_what_needs_one_says_so(regime, size):
    with pytest.raises(ConfigError, match=rf'^config\.data\.source = \(\): regime "{regime}" trains on the source'):
        trial_of(**ALONE, regime=regime, data__source_size=size)


def test_sources_have_rows_and_tuning_has_sources():
    with pytest.raises(ConfigError, match=r"^config\.data\.source_size = 0: must be at least 1"):
        trial_of(data__source_size=0, data__source_val_size=0)
    with pytest.raises(ConfigError, match=r"^config\.tune\.source_lr = \(0\.1,\): must be empty"):
        trial_of(**ALONE, regime="scratch", tune__source_lr=(0.1,))
    with pytest.raises(ValueError, match=r"^source_size = 5: must be 0, as there is no source task$"):
        data.transfer_split(
            data.load("counted"),
            data.Asked(
                source=(), targets=("t",), target_size=10, test_size=50, source_size=5, source_val_size=0,
                target_pool=20, val_fraction=0.5,
            ),
        )  # fmt: skip


def test_steps_are_counted_in_32_bits():
    flat = override(
        flatten(default()),
        {"name": "long", "source.total_steps": 1, "target.total_steps": 2**31 - 1, "regime": "scratch"},
    )
    with pytest.raises(ConfigError, match=r'regime "scratch": a phase of 2,147,483,648 steps: must be less than'):
        resolve(flat, data.load("digits"))


def test_labels_between_two_evaluations_are_counted_in_32_bits():
    changes = {"name": "long", "source.total_steps": 1, "target.total_steps": 2**24 - 1, "batch_size": 256}
    flat = override(flatten(default()), changes | {"regime": "scratch", "evaluations": 1})
    with pytest.raises(ConfigError, match=r"config.evaluations = 1: .* 4,294,967,296 examples between two evaluations"):
        resolve(flat, data.load("digits"))
    resolve(override(flat, {"evaluations": 3}), data.load("digits"))


@pytest.mark.parametrize("epochs", [1e300, 1.7e308])
def test_durations_beyond_all_count_are_refused_in_a_sentence(epochs):
    changes = {"source.total_steps": 1, "target.total_epochs": epochs, "regime": "scratch", "name": "long"}
    with pytest.raises(ConfigError, match=r"a phase of [\d,]{1,20} steps: must be less than"):
        resolve(override(flatten(default()), changes), data.load("digits"))


def test_a_phase_names_a_task_once():
    regimes = {"twice": ({"tasks": ("identity", "identity"), "total_steps": 5}, {})}
    changes = {"source.total_steps": 1, "target.total_steps": 1, "regime": "twice", "regimes": regimes, "name": "twice"}
    with pytest.raises(ConfigError, match="each once"):
        resolve(override(flatten(default()), changes), data.load("digits"))
