"""A pack that was interrupted goes on on another number of devices."""

import signal

import numpy as np
import pytest

from mtl.sweep.execute import execute
from mtl.sweep.snapshots import Interrupt, Snapshots
from mtl.sweep.store import Workdir
from mtl.train.loop import Stopped
from mtl.train.placement import Placement
from tests.sweep.test_interrupts import plan_of

ONE, TWO = Placement("map"), Placement("map", data=2)


def stopped(workdir, plan, placement):
    """Train until the first boundary after a few steps."""
    interrupt = Interrupt()

    def progress(work, done, failed):
        interrupt.number = signal.SIGTERM

    with pytest.raises(Stopped):
        execute(plan, workdir, placement=placement, interrupt=interrupt, progress=progress)
    assert len(list((workdir.path / "snapshots").iterdir())) == 1


def outputs(workdir, plan):
    return np.stack([workdir.predictions(t.hash, t.target)["outputs"] for t in plan.trials.values()])


@pytest.mark.parametrize(
    ("before", "after"),
    [pytest.param(ONE, TWO, id="more", marks=pytest.mark.slow), pytest.param(TWO, ONE, id="fewer")],
)
def test_it_comes_to_the_same(tmp_path, before, after, monkeypatch):
    plan = plan_of({"regime": "scratch"})
    execute(plan, Workdir(tmp_path / "whole"), placement=after)
    workdir = Workdir(tmp_path / "two")
    stopped(workdir, plan, before)
    load, begun = Snapshots.load, []
    monkeypatch.setattr(Snapshots, "load", lambda self, keys: begun.append(load(self, keys)) or begun[-1])
    execute(plan, workdir, placement=after)
    assert begun[0].at > 0 and begun[0].data == before.data
    # Sums in another order: the same up to rounding, over the 24 steps of this phase.
    np.testing.assert_allclose(outputs(workdir, plan), outputs(Workdir(tmp_path / "whole"), plan), atol=1e-4)
    assert not list((tmp_path / "two" / "snapshots").iterdir())
