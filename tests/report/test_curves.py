import numpy as np
import pytest

from mtl.report.analyse import analyse
from mtl.report.curves import Curve, curves_figure, curves_of, learning_curves, targets_shown
from mtl.report.picked import Picked
from mtl.report.targets import analyse_targets
from tests.report.studies import crossed, scores_of


def phase(task, val, train, at, best, most):
    return {
        "val_loss": {task: val}, "train_loss": {task: train}, "evaluated_at": at, "best_at": best, "most_steps": most,
    }  # fmt: skip


def trial(row, size, replicate, *phases, target=""):
    return Picked(row, float(size), replicate, target, "", {"phases": list(phases)})


def test_curves_go_over_all_phases_that_see_the_target_and_on_where_one_stopped():
    source = phase("source", [9.0], [9.0], [5], 5, 5)
    whole = phase("even", [3.0, 2.0, 1.0], [2.5, 1.5, 0.5], [10, 20, 30], 30, 40)
    early = phase("even", [3.0, 4.0], [2.0, 1.0], [10, 20], 10, 40)
    last = phase("even", [0.5], [0.25], [10], 10, 10)
    found = curves_of([trial("a", 50, 0, source, whole, last), trial("a", 50, 1, source, early, last)], ["even"])
    curve = found[50.0]["a"]
    assert curve.steps.tolist() == [10, 20, 30, 50]
    assert curve.validation.tolist() == [[3, 2, 1, 0.5], [3, 4, 3, 0.5]]
    assert curve.training.tolist() == [[2.5, 1.5, 0.5, 0.25], [2, 1, 2, 0.25]]


def test_what_diverged_is_a_gap_and_several_targets_are_averaged():
    gone = phase("a", [1.0, None], [1.0, 2.0], [1, 2], 1, 2)
    fine = phase("a", [1.0, 0.5], [1.0, 2.0], [1, 2], 2, 2)
    other = phase("b", [3.0, 2.5], [3.0, 4.0], [1, 2], 2, 2)
    curve = curves_of([trial("x", 5, 0, gone), trial("x", 5, 1, fine)], ["a"])[5.0]["x"]
    assert curve.validation[:, 0].tolist() == [1, 1] and np.isnan(curve.validation[:, 1]).all()
    alone = [trial("x", 5, 0, fine, target="a"), trial("x", 5, 0, other, target="b")]
    assert curves_of(alone, ["a", "b"])[5.0]["x"].validation.tolist() == [[2.0, 1.5]]
    assert curves_of(alone, ["b"])[5.0]["x"].validation.tolist() == [[3.0, 2.5]]


def test_a_panel_a_size_validation_solid_and_training_dashed():
    analysis = analyse(scores_of(crossed(np.array([[0.7, 0.8], [0.75, 0.8]]), 3, 20), ("scratch", "b"), task="t"), 50)
    of = phase("t", [1.0, 0.5], [0.8, 0.1], [1, 2], 2, 2)
    figure = learning_curves(analysis, [trial(r, n, 0, of) for r in ("scratch", "b") for n in (10, 20)])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["n = 10", "n = 20"]
    for axes in figure.axes:
        lines = {(line.get_label(), line.get_linestyle()): line.get_ydata().tolist() for line in axes.lines}
        assert lines[("scratch", "-")] == [1.0, 0.5] and lines[("_scratch", "--")] == [0.8, 0.1]
    assert learning_curves(analysis, []) is None


def test_of_many_targets_the_first_of_one_metric_are_shown():
    scores = [scores_of(crossed(np.full((2, 1), 0.7), 3, 20), ("scratch", "b"), task=f"t{k}", rows=np.arange(20),
                        metric="auroc" if k == 1 else "accuracy") for k in range(15)]  # fmt: skip
    shown = targets_shown(analyse_targets(scores, {"scratch": 15, "b": 1}, 20))
    assert shown == ["t0", *(f"t{k}" for k in range(2, 13))]


def test_a_curve_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"curve 'a': shape \(3,\) at 3 steps; it should be \(replicates, steps\)"):
        curves_figure({"n": {"a": Curve([1, 2, 3], np.zeros(3), np.zeros(3))}}, title="", told="")
