"""Progress: what is on disk already is neither work to do nor work done."""

import shutil

import pytest

from mtl.config import override
from mtl.sweep import product, sweep
from mtl.sweep.execute import execute
from mtl.sweep.launch import launch
from mtl.sweep.plan import make_plan
from mtl.sweep.store import Workdir
from mtl.sweep.workers import on_disk, total_work
from tests.sweep.test_failures import MLP, Recorder, run, trials

ENTRIES = product(sweep("regime", ("finetune", "linear_probe")), sweep("seed", range(2)))


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [0, 2])
def test_progress_counts_only_what_is_still_to_be_trained(tmp_path, jobs):
    workdir = Workdir(tmp_path / "work")
    first, again = Recorder(), Recorder()
    run(workdir.path, MLP, ENTRIES, first)
    assert first.totals == (first.begun[0][0], 4, 0)
    for name in ("results", "trials"):
        shutil.rmtree(workdir.path / name)
    plan = make_plan(trials(*ENTRIES))
    there = on_disk(plan, workdir)
    assert {plan.nodes[key].source_only for key in there} == {True} and len(there) == 2
    launch(MLP, {"some": ENTRIES}, Workdir(workdir.path), jobs=jobs, config_file=None, display=again)
    # The target's phases: 8 steps of 32 rows; three times the work where they train the backbone.
    assert again.begun == [(2 * 8 * 32 * (1 + 3), 4)]
    assert again.totals == (again.begun[0][0], 4, 0)


def test_a_phase_on_disk_is_not_trained_and_what_is_gone_before_it_is(tmp_path):
    """A result tells of every phase of its trial: of one whose file was removed, too."""
    source = {"tasks": "source", "lr": "source_lr", "budget": "source"}
    head = {"trainable": "head", "fresh": ("head",)}
    base = override(MLP, {"regimes": {"probe": (source, head), "then_all": (source, head, {})}})
    plan = make_plan(trials({"regime": "probe"}, {"regime": "then_all"}, base=base))
    workdir = Workdir(tmp_path / "work")
    # Both rest on the source's 4 steps and the head's 8; one goes on with 8 of everything.
    assert total_work(plan, workdir) == 32 * (4 * 3 + 8 + 8 * 3)
    _, shared, _ = max(plan.chains.values(), key=len)
    workdir.prefix(shared).parent.mkdir(parents=True)
    workdir.prefix(shared).touch()
    assert on_disk(plan, workdir) == {shared}
    assert total_work(plan, workdir) == 32 * (4 * 3 + 8 * 3)
    execute(plan, whole := Workdir(tmp_path / "whole"))
    workdir.prefix(shared).write_bytes(whole.prefix(shared).read_bytes())
    execute(plan, workdir)
    assert [workdir.result(d)["test"] for d in plan.trials] == [whole.result(d)["test"] for d in plan.trials]
