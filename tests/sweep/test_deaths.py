"""Workers that die, and trials that fail: what is run again, how often, and that nothing is run twice."""

import contextlib
import importlib
import json
import os
import shutil
import signal
import time

import pytest

from mtl.cli import main
from mtl.config import flatten, load
from mtl.sweep import sweeps_of
from mtl.sweep.launch import Silent, launch
from mtl.sweep.store import StoreError, Workdir
from tests.sweep import by_hand

# A model that kills the process that trains it, as often as the file beside the config says.
CONFIG = """
import os, pathlib, signal
import flax.linen as nn
from mtl import models
from mtl.config import default
from mtl.sweep import product, sweep

LEFT = pathlib.Path(__file__).with_name("left")

@models.register("mortal")
class Mortal(nn.Module):
    mortal: bool = False
    @nn.compact
    def __call__(self, x, train):
        if train and self.mortal and int(LEFT.read_text()) > 0:
            LEFT.write_text(str(int(LEFT.read_text()) - 1))
            HOW
        return nn.relu(nn.Dense(4, name="dense")(x.reshape(x.shape[0], -1)))

def get_config():
    c = default()
    c.name = "mortal"
    c.model.name = "mortal"
    c.source.total_steps = c.target.total_steps = 4
    c.evaluations = 1
    c.data.target_size = 20
    return c

def sweep_some():
    for mortal in (False, True):
        for seed in range(2):
            yield {"regime": "scratch", "seed": seed, "model.options": {"mortal": mortal}}
"""
KILL = "print('the last words', file=__import__('sys').stderr, flush=True); os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(autouse=True)
def models_of_configs():
    from mtl import models

    before = dict(models.MODELS)
    forget()
    yield
    models.MODELS.clear()
    models.MODELS.update(before)


def forget():
    """Forget the models that were made: the one of that name is another class each time."""
    importlib.import_module("mtl.config.trial")._model.cache_clear()


class Told(Silent):
    def __init__(self):
        self.told = []

    def say(self, text):
        self.told.append(text)


def run(folder, deaths, how=KILL, **options):
    (folder / "left").write_text(str(deaths))
    (folder / "c.py").write_text(CONFIG.replace("HOW", how))
    forget()
    config, module = load(str(folder / "c.py"))
    display = Told()
    workdir = Workdir(folder / "work")
    options = {"jobs": 1, "config_file": str(folder / "c.py"), "display": display} | options
    (summary,) = launch(flatten(config), {"some": sweeps_of(module)["some"]()}, workdir, **options)
    return summary, display.told


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    summary, _ = run(folder, 0, jobs=0)
    return {m.trial.hash: model(folder, m.trial.hash) for m in summary.sweep.members}


def model(folder, digest):
    return (folder / "work" / "trials" / digest / "model.safetensors").read_bytes()


def times(folder):
    return by_hand.stamps(folder / "work")


@pytest.mark.slow
def test_what_a_dead_worker_left_is_given_to_a_new_one_once(tmp_path, serial):
    summary, told = run(tmp_path, 1)
    assert (summary.ran, summary.failed) == (4, {})
    (line,) = told
    assert "worker 0 was ended by signal 9" in line and "the last words" in line and "2 trials" in line
    assert {d: model(tmp_path, d) for d in serial} == serial
    before = times(tmp_path)
    assert len(before) == 4
    again, told = run(tmp_path, 0)
    assert (again.ran, told) == (0, []) and times(tmp_path) == before


@pytest.mark.slow
def test_what_a_dead_worker_left_is_seen_though_it_has_a_result_from_before(tmp_path, serial):
    """Of a trial whose directory somebody removed, to have it run again."""
    summary, _ = run(tmp_path, 0)
    digest = next(m.trial.hash for m in summary.sweep.members if m.changes["model.options"]["mortal"])
    shutil.rmtree(tmp_path / "work" / "trials" / digest)
    summary, told = run(tmp_path, 1)
    assert (summary.ran, summary.reused, summary.failed) == (1, 3, {})
    (line,) = told
    assert "worker 0 was ended by signal 9" in line and "1 trials" in line
    assert {d: model(tmp_path, d) for d in serial} == serial


@pytest.mark.slow
def test_trials_whose_worker_dies_twice_have_failed_and_the_others_are_done(tmp_path, serial):
    summary, _ = run(tmp_path, 2)
    mortal = {m.trial.hash for m in summary.sweep.members if m.changes["model.options"]["mortal"]}
    assert summary.failed.keys() == mortal
    assert all("died twice" in reason and "the last words" in reason for reason in summary.failed.values())
    before = times(tmp_path)
    assert before.keys() == serial.keys() - mortal
    # The next command runs them, and them only.
    mended, _ = run(tmp_path, 0)
    assert (mended.ran, mended.reused, mended.failed) == (2, 2, {})
    assert {d: times(tmp_path)[d] for d in before} == before
    assert not list((tmp_path / "work").glob("trials/*/failed.json"))
    assert {d: model(tmp_path, d) for d in serial} == serial


@pytest.mark.parametrize("retries", [0, 1])
def test_a_trial_that_raises_is_tried_again_as_often_as_was_asked(tmp_path, retries, serial):
    summary, told = run(tmp_path, 1, 'raise RuntimeError("for once")', jobs=0, retries=retries)
    if retries:
        assert (summary.ran, summary.failed) == (4, {})
        assert told == ["some: 2 failed; tried again (1 of 1)"]
        assert {d: model(tmp_path, d) for d in serial} == serial
    else:
        assert set(summary.failed.values()) == {"RuntimeError: for once"} and not told


def test_retries_through_the_command_line(tmp_path, capsys):
    (tmp_path / "left").write_text("3")
    (tmp_path / "c.py").write_text(CONFIG.replace("HOW", 'raise RuntimeError("again")'))
    trial = ["--config.regime=scratch", "--config.model.options.mortal=true"]
    command = ["run", f"--config={tmp_path / 'c.py'}", f"--workdir={tmp_path / 'work'}", "--quiet", *trial]
    assert main([*command, "--retries=-1"]) == 2
    assert "--retries=-1: must be at least 0" in capsys.readouterr().err
    assert main([*command, "--retries=1"]) == 1
    assert (tmp_path / "left").read_text() == "1"
    assert main([*command, "--retries=1"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "done"


@pytest.mark.slow
def test_a_worker_that_cannot_write_ends_the_run_with_its_sentence(tmp_path):
    with pytest.raises(StoreError, match="cannot be written: File too large"):
        run(tmp_path, 0, jobs=1, config_file=str(limited(tmp_path)))
    summary, _ = run(tmp_path, 0)
    assert (summary.failed, len(times(tmp_path))) == ({}, 4)


def limited(folder):
    """Return a config file that lets its worker write no file beyond 600 bytes."""
    file = folder / "limited.py"
    limit = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))\n"
    file.write_text(limit + CONFIG.replace("HOW", "pass"))
    return file


@pytest.mark.slow
def test_a_worker_killed_from_outside_at_any_time(tmp_path, serial):
    import threading

    def killer():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for lease in (tmp_path / "work").glob("lease/*.json"):
                # It may be gone by now, or half written.
                with contextlib.suppress(FileNotFoundError, ProcessLookupError, json.JSONDecodeError):
                    workers = json.loads(lease.read_bytes())["workers"]
                    if workers:
                        time.sleep(3.0)
                        os.kill(workers[0][0], signal.SIGKILL)
                        return
            time.sleep(0.05)

    thread = threading.Thread(target=killer)
    thread.start()
    summary, _ = run(tmp_path, 0, jobs=2)
    thread.join()
    assert summary.failed == {}
    assert {d: model(tmp_path, d) for d in serial} == serial
