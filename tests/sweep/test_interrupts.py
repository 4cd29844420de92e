"""A run that is interrupted keeps what it has, and goes on to the same bits."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from mtl.config import default, flatten, override, resolve
from mtl.sweep.execute import execute
from mtl.sweep.plan import load_table, make_plan
from mtl.sweep.snapshots import Interrupt, Snapshots
from mtl.sweep.store import Workdir
from mtl.train import loop
from mtl.train.loop import Stopped

BASE = override(
    flatten(default()),
    {
        "model.options": {"hidden": (6,)},
        "source.total_steps": 30,
        "target.total_steps": 24,
        "evaluations": 2,
        "optimizer.weight_decay": 0.1,
        "select": "best",
    },
)


def plan_of(*changes):
    table = load_table("digits", {})
    return make_plan([resolve(override(BASE, c), table) for c in changes])


CHANGES = [{"regime": r, "seed": s} for r in ("lp_ft", "multitask") for s in range(3)]


def bits(workdir, plan):
    return {
        digest: (
            (workdir.trial(digest) / "model.safetensors").read_bytes(),
            workdir.predictions(digest, "even")["outputs"].tobytes(),
        )
        for digest in plan.trials
    }


def curves(workdir, plan):
    return {d: [(p["val_loss"], p["train_loss"]) for p in workdir.result(d)["phases"]] for d in plan.trials}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir, plan = Workdir(tmp_path_factory.mktemp("undisturbed")), plan_of(*CHANGES)
    execute(plan, workdir)
    return bits(workdir, plan), curves(workdir, plan)


@pytest.mark.slow
def test_interrupted_at_every_boundary_it_comes_to_the_same_bits(tmp_path, undisturbed, monkeypatch):
    """The signal comes before each boundary in turn, each time in a run of its own that then goes on."""
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    workdir, plan = Workdir(tmp_path), plan_of(*CHANGES)
    stops = 0
    while True:
        interrupt = Interrupt()

        def progress(work, done, failed, interrupt=interrupt):
            interrupt.number = signal.SIGTERM

        left = make_plan([t for t in plan.trials.values() if workdir.result(t.hash) is None])
        if not left.trials:
            break
        try:
            execute(left, workdir, interrupt=interrupt, progress=progress)
        except Stopped:
            stops += 1
            assert list((tmp_path / "snapshots").iterdir())
    assert stops >= 8
    assert (bits(workdir, plan), curves(workdir, plan)) == undisturbed
    assert not list((tmp_path / "snapshots").glob("*"))


@pytest.mark.slow
def test_a_damaged_snapshot_is_said_and_its_phase_begins_anew(tmp_path, undisturbed):
    workdir, plan = Workdir(tmp_path), plan_of(*CHANGES)
    interrupt, told = Interrupt(), []
    interrupt.number = signal.SIGTERM
    with pytest.raises(Stopped):
        execute(plan, workdir, interrupt=interrupt)
    (file,) = (tmp_path / "snapshots").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    execute(plan, workdir, say=told.append)
    assert len(told) == 1 and file.name in told[0] and "begin anew" in told[0]
    assert (bits(workdir, plan), curves(workdir, plan)) == undisturbed


@pytest.mark.slow
def test_lanes_go_on_apart_from_the_pack_they_were_kept_with(tmp_path, undisturbed):
    """Three lanes are kept together; one of them alone is gone on with, the others after it."""
    workdir, plan = Workdir(tmp_path), plan_of(*CHANGES)
    interrupt = Interrupt()
    interrupt.number = signal.SIGTERM
    with pytest.raises(Stopped):
        execute(plan, workdir, interrupt=interrupt)
    kept = Snapshots(tmp_path / "snapshots", Interrupt(), print)
    assert sum(kept.at(key) > 0 for key in plan.nodes) == 3
    digests = list(plan.trials)
    execute(make_plan([plan.trials[digests[1]]]), workdir)
    execute(make_plan([plan.trials[d] for i, d in enumerate(digests) if i != 1]), workdir)
    assert (bits(workdir, plan), curves(workdir, plan)) == undisturbed


@pytest.mark.slow
def test_packs_hold_no_more_weights_than_there_is_memory(tmp_path, undisturbed, monkeypatch):
    """With room for the weights of two trials, packs are of two; the bits are the same."""
    seen, run_phase = [], loop.run_phase

    def counted(seeds, *rest, **options):
        seen.append(len(seeds))
        return run_phase(seeds, *rest, **options)

    monkeypatch.setattr("mtl.sweep.execute.memory_limit", lambda: 0)
    monkeypatch.setattr(loop, "run_phase", counted)
    workdir, plan = Workdir(tmp_path), plan_of(*CHANGES)
    execute(plan, workdir)
    assert set(seen) <= {1, 2} and len(seen) >= 6
    assert (bits(workdir, plan), curves(workdir, plan)) == undisturbed


CONFIG = """
from mtl.config import default
from mtl.sweep import product, sweep

def get_config():
    c = default()
    c.name = "long"
    c.regime = "scratch"
    c.model.options = {"hidden": (128, 128)}
    c.source.total_steps = 10
    c.target.total_steps = 50_000_000  # However fast a machine is, it does not end.
    c.evaluations = 2
    return c

def sweep_seeds():
    return sweep("seed", range(2))
"""


def command(folder, *arguments, before=""):
    """Start a command on a long run; its config file does ``before`` first."""
    (folder / "long.py").write_text(before + CONFIG)
    words = [sys.executable, "-m", "mtl.cli", arguments[0], f"--config={folder / 'long.py'}", *arguments[1:]]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(folder.parent / "cache")}
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # A group of its own, to be told as a whole, as terminals and schedulers do.
    )


def until_it_trains(process, seconds=120):
    """Read what a process says until it tells how far it is; kill it if it never does."""
    said = ""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        for line in process.stderr:
            said += line
            if re.search(r": +[0-9]+ %", line):
                return
    finally:
        timer.cancel()
    raise AssertionError(f"it ended with {process.wait()} before it trained: {said}")


def free_port():
    """A port that nobody listens on, of those that systems give to nobody who asks for any."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as bound, contextlib.suppress(OSError):
            bound.bind(("127.0.0.1", port))
            return port


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["process", "group"])
@pytest.mark.parametrize("arguments", [("run",), ("sweep", "--jobs=2")], ids=["run", "workers"])
def test_signals_save_within_ten_seconds_and_tell_by_the_exit_code(tmp_path, number, code, arguments, send):
    """A signal to the process, or to all of its group (a terminal's Ctrl-C, a scheduler's end of time)."""
    process = command(tmp_path, *arguments, f"--workdir={tmp_path / 'work'}")
    until_it_trains(process)
    time.sleep(2)  # The other worker as well.
    begun = time.monotonic()
    send(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert time.monotonic() - begun < 10
    assert "interrupted; what was done is kept" in err
    kept = list((tmp_path / "work" / "snapshots").iterdir())
    assert len(kept) == (2 if arguments[0] == "sweep" else 1)


@pytest.mark.slow
def test_two_processes_keep_together_on_a_signal_and_one_goes_on(tmp_path):
    port, steps = free_port(), "--config.target.total_steps=50000"

    def start(i):
        where = [f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process={i}"]
        return command(tmp_path, "run", f"--workdir={tmp_path / 'work'}", steps, *where)

    both = [start(i) for i in range(2)]
    until_it_trains(both[0])
    both[1].send_signal(signal.SIGTERM)  # One is told: both stop, at the same step.
    for process in both:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 143, err
    (file,) = (tmp_path / "work" / "snapshots").iterdir()
    alone = command(tmp_path, "run", f"--workdir={tmp_path / 'work'}", steps, "--quiet")
    out, err = alone.communicate(timeout=300)
    assert alone.returncode == 0, err
    assert not file.exists()
    result = json.loads(out)
    again = command(tmp_path, "run", f"--workdir={tmp_path / 'other'}", steps, "--quiet")
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    # Thousands of steps apart, two orders of summation drift apart; what they learn does not.
    accuracy, right = (found["test"]["even"]["accuracy"] for found in (result, json.loads(out)))
    np.testing.assert_allclose(accuracy, right, atol=0.03)


@pytest.mark.slow
def test_processes_that_do_not_come_are_not_waited_for_forever(tmp_path):
    port = free_port()
    where = [f"--coordinator=127.0.0.1:{port}", "--processes=2", "--process=0", "--start-timeout=2"]
    process = command(tmp_path, "run", f"--workdir={tmp_path / 'work'}", *where)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith(f"mtl: --coordinator=127.0.0.1:{port}") and "within 2 s" in err and err.count("\n") == 1
    assert not (tmp_path / "work").exists()
