"""Snapshots are written while training goes on: of the state they were taken from, and never failing in silence."""

import concurrent.futures
import threading

import numpy as np
import pytest

from mtl.checkpoint import load_tree, save_tree
from mtl.host.files import FileError
from mtl.sweep.execute import execute
from mtl.sweep.snapshots import Interrupt, Snapshots
from mtl.sweep.store import Workdir
from mtl.train.loop import Snapshot, Stopped
from tests.sweep.test_interrupts import CHANGES, bits, plan_of


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr("mtl.sweep.snapshots.EVERY_SECONDS", 0.0)


def state(at):
    loss = [np.ones((1, 1), np.float32)] * at
    return Snapshot({"w": np.full((1, 3), at, np.float32)}, at, loss, list(loss), list(loss), 0.0, 1)


@pytest.fixture
def held(monkeypatch):
    """Let no snapshot be written before the event is set."""
    event = threading.Event()

    def waiting(*arguments):
        assert event.wait(30)
        save_tree(*arguments)

    monkeypatch.setattr("mtl.sweep.snapshots.save_tree", waiting)
    return event


def test_what_is_written_is_the_state_that_was_there_whatever_becomes_of_it(tmp_path, held):
    snapshots = Snapshots(tmp_path, Interrupt(), print)
    now = state(1)
    snapshots.guard(["a"]).boundary(lambda: now)
    now.moving["w"][:] = 7  # As the next step does, to the buffer it was given.
    now.train.append(now.train[0])
    assert not list(tmp_path.iterdir())  # And it is there before anything is written.
    held.set()
    snapshots.settle()
    (file,) = tmp_path.iterdir()
    tree, about = load_tree(file)
    assert tree["moving"]["w"].tolist() == [[1, 1, 1]] and tree["train"].shape == (1, 1, 1) and about["at"] == 1


def test_a_process_that_is_told_to_stop_waits_for_all_of_it(tmp_path, held):
    interrupt = Interrupt()
    snapshots = Snapshots(tmp_path, interrupt, print)
    guard = snapshots.guard(["a"])
    guard.boundary(lambda: state(1))
    interrupt.ask()
    threading.Timer(0.2, held.set).start()
    with pytest.raises(Stopped):
        guard.boundary(lambda: state(2))
    assert [load_tree(file)[1]["at"] for file in sorted(tmp_path.iterdir())] == [1, 2]


def refused(*_):
    raise FileError("x cannot be written: No space left on device")


def test_an_error_is_told_at_the_next_boundary(tmp_path, monkeypatch):
    monkeypatch.setattr("mtl.sweep.snapshots.save_tree", refused)
    snapshots = Snapshots(tmp_path, Interrupt(), print)
    guard = snapshots.guard(["a"])
    guard.boundary(lambda: state(1))
    concurrent.futures.wait([snapshots._writing], 30)
    with pytest.raises(FileError, match="No space"):
        guard.boundary(lambda: state(2))


def test_the_error_of_the_last_one_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("mtl.sweep.snapshots.save_tree", refused)
    with pytest.raises(FileError, match="No space"):
        execute(plan_of(CHANGES[0]), Workdir(tmp_path))


def test_without_looking_the_error_is_silent(tmp_path, monkeypatch):
    """The control."""
    monkeypatch.setattr("mtl.sweep.snapshots.save_tree", refused)
    monkeypatch.setattr(Snapshots, "settle", lambda self, wait=True: None)
    execute(plan_of(CHANGES[0]), Workdir(tmp_path))


@pytest.mark.slow
def test_every_snapshot_that_a_run_wrote_leads_to_its_bits(tmp_path, monkeypatch):
    kept = []

    def keeping(path, *rest):
        save_tree(path, *rest)
        kept.append((path.name, path.read_bytes()))

    monkeypatch.setattr("mtl.sweep.snapshots.save_tree", keeping)
    plan, undisturbed = plan_of(*CHANGES[:2]), Workdir(tmp_path / "whole")
    execute(plan, undisturbed)
    assert len(kept) >= 6
    for i, (name, content) in enumerate(list(kept)):
        folder = tmp_path / str(i) / "snapshots"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content)
        execute(plan, Workdir(folder.parent))
        assert bits(Workdir(folder.parent), plan) == bits(undisturbed, plan)
