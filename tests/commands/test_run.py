"""From Python a config runs as from the command line."""

import threading

import flax.linen as nn
import numpy as np
import pytest

import mtl
from mtl import models
from mtl.cli import main
from mtl.commands.run import TrialError
from mtl.config import ConfigError, default
from mtl.sweep import product, sweep
from mtl.sweep.lease import HeldError, Lease
from mtl.sweep.store import Workdir
from tests.sweep import by_hand

FILE = "tests/fixtures/small.py"


def config():
    c = default()
    c.name, c.model.options, c.data.test_size = "small", {"hidden": (2,)}, 40
    c.source.total_steps, c.target.total_steps, c.evaluations = 6, 4, 1
    return c


def test_a_trial_is_the_command_lines(tmp_path, capsys):
    assert main(["run", f"--config={FILE}", f"--workdir={tmp_path / 'cli'}", "--config.seed=1", "--quiet"]) == 0
    capsys.readouterr()
    found = mtl.run(config(), tmp_path / "python", changes={"seed": 1}, quiet=True)
    assert capsys.readouterr() == ("", "")
    (other,) = by_hand.results(tmp_path / "cli").values()
    assert (
        found["hash"] == other["hash"] and found["test"] == other["test"] and found["val_score"] == other["val_score"]
    )
    again = mtl.run(FILE, tmp_path / "python", changes={"seed": 1})
    assert again["finished"] == found["finished"]  # It was there.
    assert mtl.load(tmp_path / "python" / "trials" / found["hash"]).predict(np.zeros((3, 64))).shape == (3,)


@pytest.mark.slow
def test_a_sweep_is_the_command_lines(tmp_path):
    assert main(["sweep", f"--config={FILE}", f"--workdir={tmp_path / 'cli'}", "--jobs=0"]) == 0
    want = mtl.results(tmp_path / "cli").set_index("hash").sort_index()
    named = mtl.run_sweep(FILE, "even", tmp_path / "named", quiet=True)
    entries = product(sweep("regime", ("scratch", "finetune")), sweep("seed", range(2)))
    made = mtl.run_sweep(config(), entries, tmp_path / "made", name="even", quiet=True)
    for found in (named, made):
        found = found.set_index("hash").sort_index()
        assert list(found["test_accuracy"]) == list(want["test_accuracy"]) and list(found.index) == list(want.index)
        assert set(found["status"]) == {"done"}
    assert main(["table", str(tmp_path / "made")]) == 0


def test_progress_is_shown_unless_it_is_not_wanted(tmp_path, capsys):
    mtl.run(config(), tmp_path)
    said = capsys.readouterr()
    assert config().regime in said.err and not said.out


@pytest.mark.parametrize(
    ("of", "arguments", "error", "sentence"),
    [
        (mtl.run, {"changes": {"regime": "finetun"}}, ConfigError, 'did you mean "finetune"'),
        (mtl.run, {"config": {"lr": 1}}, ConfigError, r"config: must begin with mtl\.config\.default\(\)"),
        (mtl.run, {"config": "nowhere.py"}, ConfigError, "nowhere.py"),
        (mtl.run_sweep, {"sweep": "odd", "config": FILE}, ConfigError, 'sweep = "odd": the config has even'),
        (mtl.run_sweep, {"sweep": "odd"}, ConfigError, 'sweep = "odd": the config has no sweep'),
        (mtl.run_sweep, {"sweep": [{}], "jobs": 2}, ConfigError, "jobs = 2: worker processes execute a config file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, of, arguments, error, sentence):
    given = {"config": config(), "workdir": tmp_path / "work", "quiet": True} | arguments
    with pytest.raises(error, match=sentence):
        of(**given)
    assert not (tmp_path / "work").exists()


def test_a_directory_in_use_is_refused(tmp_path):
    lease = Lease(tmp_path)
    lease.acquire()
    try:
        with pytest.raises(HeldError):
            mtl.run(config(), tmp_path, quiet=True)
    finally:
        lease.release()
    assert not by_hand.shards(tmp_path)


def test_a_failed_trial_raises_its_reason(tmp_path, monkeypatch):
    class Broken(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            if train:
                raise ValueError("no good")
            return nn.Dense(2)(x)

    monkeypatch.setitem(models.MODELS, "broken", Broken)
    with pytest.raises(TrialError, match=r"^trial .* failed: ValueError: no good"):
        mtl.run(config(), tmp_path, changes={"model.name": "broken", "model.options": {}}, quiet=True)


def test_it_runs_in_a_thread(tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(mtl.run(config(), tmp_path, quiet=True)))
    thread.start()
    thread.join()
    assert found[0]["status"] == "done"
    assert Workdir(tmp_path).hashes() == [found[0]["hash"]]
