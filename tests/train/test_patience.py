"""A phase that selects its best state ends after some evaluations without a better one, with what it would have had."""

import dataclasses

import numpy as np
import pytest

from mtl.train.placement import MAP, VMAP
from tests.train.build import data_of, initial_of, run_phase, same, stages, trial

EVALUATIONS = 12


def outcomes(patience, rates=(0.3,), placement=MAP, **options):
    """Return what ``scratch`` comes to at some rates, in one pack."""
    trials = [trial(regime="scratch", select="best", patience=patience, lr=lr, target__total_steps=36) for lr in rates]
    phases = [stages(t)[0] for t in trials]
    assert [s.hypers.patience for s in phases] == [patience] * len(rates)
    options = {"evaluations": EVALUATIONS, "placement": placement} | options
    return run_phase(trials, phases, data_of(*trials), initial_of(*trials), **options)


def stop_of(curve, patience):
    """Return (evaluations that are made, the one that is kept) of a curve of scores, by hand."""
    best, at = np.inf, 0
    for k, score in enumerate(curve, 1):
        if score < best:
            best, at = score, k
        if k - at >= patience:
            return k, at
    return len(curve), at


@pytest.mark.parametrize("placement", [MAP, VMAP], ids=str)
def test_each_lane_stops_by_itself_with_the_state_of_a_run_to_the_end(placement):
    rates = (0.3, 0.001, 0.1, 1.0)
    whole, early = outcomes(0, rates, placement), outcomes(2, rates, placement)
    counts = set()
    for full, lane in zip(whole, early, strict=True):
        assert len(full.steps) == EVALUATIONS, "without patience a phase runs to its end"
        made, kept = stop_of(full.val_score["goal"], 2)
        assert lane.steps == full.steps[:made] and lane.best_at == full.steps[kept - 1]
        for name in ("train_loss", "val_loss", "val_score"):
            for task, curve in getattr(full, name).items():
                if placement is MAP:
                    assert getattr(lane, name)[task] == curve[:made]
                else:
                    np.testing.assert_allclose(getattr(lane, name)[task], curve[:made], rtol=1e-5)
        if placement is MAP and full.best_at == lane.best_at:
            assert same(lane.weights, full.weights)
        counts.add(made)
    assert len(counts) > 1 and min(counts) < EVALUATIONS, "lanes must stop at different evaluations"
    total = sum(lane.seconds for lane in early)
    for lane in early:  # Each is charged for its own steps.
        assert lane.seconds == pytest.approx(total * lane.steps[-1] / sum(o.steps[-1] for o in early))


def test_a_lane_that_has_stopped_has_the_bits_of_the_trial_alone():
    alone, beside = outcomes(2)[0], outcomes(2, (0.3, 0.001))[0]
    assert same(alone.weights, beside.weights) and alone.val_score == beside.val_score


def test_progress_is_told_of_all_steps_and_a_pack_ends_with_its_last_lane():
    told = []
    (lane,) = outcomes(1, (1.0,), on_steps=told.append)
    assert lane.steps[-1] < 36 + 12 and sum(told) == 36 + 12  # The budgets of source and target.


def test_the_last_state_needs_no_patience():
    last = trial(regime="scratch", select="last", patience=2)
    assert stages(last)[0].hypers.patience == 0
    assert (
        dataclasses.replace(stages(last)[0].program, select="best")
        == stages(trial(regime="scratch", select="best"))[0].program
    )
