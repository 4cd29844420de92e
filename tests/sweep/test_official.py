"""Trials that are tested on the data's own test part, from a file to the table's notes."""

import re

import numpy as np
import pytest

import mtl
from mtl.config import ConfigError, default, flatten
from mtl.report.collect import collect
from mtl.sweep import product, sweep
from mtl.sweep.plan import split_of, trial_of
from mtl.sweep.store import Workdir


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    part = rng.choice(["train", "val", "test"], 300, p=[0.6, 0.2, 0.2])
    lines = [",".join(map(str, (*row, int(row[0] > 0), fold))) for row, fold in zip(x, part, strict=True)]
    (tmp_path / "own.csv").write_text("\n".join(["a,b,c,y,fold", *lines]))
    c = default()
    c.name, c.data.name, c.data.source, c.data.target = "own", "csv", (), "y"
    c.data.options = {"path": "own.csv", "labels": "y", "part": "fold", "directory": str(tmp_path)}
    c.data.target_size, c.data.target_pool, c.data.test_size, c.data.split = 40, 60, 0, "official"
    c.model.options, c.evaluations, c.target.total_steps = {"hidden": (2,)}, 1, 2
    c.source.total_steps, c.regime = 0, "scratch"
    return c, part


@pytest.mark.slow
def test_it_is_tested_on_the_rows_that_the_file_says(config, tmp_path):
    c, part = config
    entries = product(sweep("regime", ("scratch",)), sweep("seed", range(2)))
    mtl.run_sweep(c, entries, tmp_path / "work", quiet=True)
    rows = mtl.results(tmp_path / "work", "predictions").groupby("seed")["row"].apply(list)
    assert rows[0] == rows[1] == np.flatnonzero(part == "test").tolist()
    notes = " ".join(collect(Workdir(tmp_path / "work"), "sweep").notes)
    assert "the test set is all examples of the data's own test part, fixed and stratified, used once." in notes


def test_a_random_split_is_not_stated_and_another_is(config):
    c, part = config
    official = trial_of(flatten(c))
    assert official.config["data"]["split"] == "official"
    split = split_of(official)
    assert set(part[split.val["y"]]) == {"val"} and set(part[split.train["y"]]) == {"train"}
    c.data.split, c.data.test_size = "random", 60
    assert "split" not in trial_of(flatten(c)).config["data"]


@pytest.mark.parametrize(
    ("split", "size", "sentence"),
    [
        ("random", 0, "config.data.test_size = 0: must be at least 1"),
        ("scaffold", 60, 'config.data.split = "scaffold": scaffolds must be groups: set config.data.options.groups ='),
        ("columns", 60, 'config.data.split = \'columns\': must be "random", "scaffold" or "official"'),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(config, split, size, sentence):
    c, _ = config
    c.data.split, c.data.test_size = split, size
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        trial_of(flatten(c))
