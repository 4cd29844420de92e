"""Workers compile what a pack needs before it begins, so that two of them do not compile the same."""

import pytest

from mtl.sweep import execute as executing
from mtl.sweep.execute import execute
from mtl.sweep.store import Workdir
from mtl.train.compiled import Compiled
from mtl.train.executor import MAP, VMAP
from tests.sweep.test_interrupts import bits, curves, plan_of


def counted(monkeypatch):
    """Return a list to which the number of compilations is added at the begin and the end of each pack's."""
    counts, together = [], executing.compile_together

    def count(calls, meanwhile):
        counts.append(Compiled.compilations)
        together(calls, meanwhile)
        counts.append(Compiled.compilations)

    monkeypatch.setattr(executing, "compile_together", count)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "reverse"), [(MAP, False), (MAP, True), (VMAP, False)], ids=str)
def test_all_that_a_pack_calls_is_compiled_before_it_begins(tmp_path, monkeypatch, executor, reverse):
    hidden = {"model.options": {"hidden": (4 + reverse + 2 * (executor == VMAP),)}}  # Programs of this test's own.
    regimes = ("lp_ft", "ridge_probe")  # Source, cached features, whole network, closed form.
    plan = plan_of(*({"regime": r, "seed": s, **hidden} for r in regimes for s in range(2)))
    counts = counted(monkeypatch)
    execute(plan, Workdir(tmp_path / "beside"), executor=executor, beside=True, reverse=reverse)
    assert len(counts) >= 2 * len(regimes) and counts[1] > counts[0]
    # Between one pack's end of compiling and the next one's begin nothing is compiled, nor after the last.
    assert counts[1::2] == [*counts[2::2], Compiled.compilations]
    execute(plan, Workdir(tmp_path / "alone"), executor=executor)
    one, other = Workdir(tmp_path / "beside"), Workdir(tmp_path / "alone")
    assert bits(one, plan) == bits(other, plan) and curves(one, plan) == curves(other, plan)


def test_who_is_alone_compiles_nothing_ahead(tmp_path, monkeypatch):
    counts = counted(monkeypatch)
    execute(plan_of({"regime": "scratch"}), Workdir(tmp_path))
    assert not counts
