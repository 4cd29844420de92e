"""The host's loop: chunks, packs and the pure trial agree; the best state is kept; nothing is compiled twice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl.train import phase, placement
from mtl.train.begin import freshen
from mtl.train.compiled import Compiled
from mtl.train.judge import Judgement
from mtl.train.placement import MAP, VMAP, width_for
from mtl.train.predict import predict
from mtl.train.program import Best, TrainState, Weights
from mtl.train.trial import boundaries, make_hypers
from tests.train.build import (
    curves,
    data_of,
    gap,
    initial_of,
    run_all,
    run_phase,
    run_pure,
    same,
    stages,
    trial,
    with_steps,
)


@pytest.fixture(scope="module")
def finetuned():
    """Fine-tuning in as few calls as evaluations allow: (trial, initial weights, stages, data, outcomes)."""
    t = trial(regime="finetune")
    return t, *run_all(t)


# Chunks and the pure trial.


def test_a_phase_cut_at_every_step_has_the_same_bits(finetuned):
    t, initial, phases, data, whole = finetuned
    calls = []
    cut = run_all(t, data, initial, chunk_seconds=0.0, on_steps=calls.append)[3]
    assert sum(calls) == sum(s.steps for s in phases)
    assert calls.count(1) >= len(calls) - 2, "all chunks but each phase's first hold one step"
    for a, b in zip(whole, cut, strict=True):
        assert same(a.weights, b.weights)
        assert a.train_loss == b.train_loss
        assert a.val_loss == b.val_loss
        assert a.diverged_at == b.diverged_at == -1


def test_evaluating_more_often_changes_no_weight(finetuned):
    t, initial, phases, data, whole = finetuned
    (often,) = run_phase([t], [phases[0]], data, [initial], evaluations=12)
    assert often.steps == list(range(1, 13))
    assert same(often.weights, whole[0].weights)
    # Losses are means over the labels since the evaluation before: of a task with a label in every row, over steps too.
    means = np.reshape(often.train_loss["kind"], (3, 4)).mean(axis=1)
    np.testing.assert_allclose(means, whole[0].train_loss["kind"], rtol=1e-5)
    for task, curve in whole[0].val_loss.items():
        assert often.val_loss[task][3::4] == curve


@pytest.fixture(scope="module")
def pure(finetuned):
    """The same trial as one pure function of what its learning rates are multiplied by."""
    _, initial, phases, data, _ = finetuned
    rates = [s.hypers.lr for s in phases]

    def trained(scale):
        lanes = []
        for stage, lr in zip(phases, rates, strict=True):
            lane = jax.tree.map(lambda a: jnp.asarray(a[0]), make_hypers([0], [stage], [0]))
            lanes.append(dataclasses.replace(lane, lr=jnp.float32(lr) * scale))
        return run_pure(phases, lanes, initial, data)

    return trained


def test_the_pure_trial_under_jit_is_what_the_loop_runs(finetuned, pure):
    """To 1e-6, not bitwise: XLA fuses a whole trial otherwise than a pack's lane."""
    outcomes = finetuned[-1]
    weights, curves = jax.jit(pure)(jnp.float32(1))
    assert gap(weights, outcomes[-1].weights) < 1e-6
    for curve, outcome in zip(curves, outcomes, strict=True):
        np.testing.assert_allclose(curve[-1], [v[-1] for v in outcome.val_loss.values()], rtol=1e-5)


@pytest.mark.slow
def test_the_pure_trial_stands_under_vmap(finetuned, pure):
    initial, outcomes = finetuned[1], finetuned[-1]
    many, _ = jax.jit(jax.vmap(pure))(jnp.asarray([1.0, 0.0]))
    assert gap(jax.tree.map(lambda a: a[0], many), outcomes[-1].weights) < 1e-5
    # Without a rate nothing moves: vmapped lanes are apart.
    assert same(jax.tree.map(lambda a: a[1], many), initial)


def test_boundaries_end_with_the_last_step_and_have_no_zero():
    for steps in (1, 2, 7, 300):
        for evaluations in (1, 3, 6):
            found = boundaries(steps, evaluations)
            assert found[-1] == steps
            assert found[0] > 0
            assert found == sorted(set(found))
            assert len(found) == min(steps, evaluations)


# Packs.

RATES = (0.02, 1e30, 0.003, 0.05, 0.02, 0.1, 0.01, 1e30, 0.5, 0.02)


def scratch(s):
    return trial(regime="scratch", seed=s, lr=RATES[s], data__target_size=(40, 20, 60, 50)[s % 4])


def packed(lanes, broken=(), how=MAP, steps=12):
    """Run lanes of ``scratch``, each with a seed, a rate and a target size of its own; ``broken`` begin from NaN."""
    trials = [scratch(s) for s in lanes]
    phases = [with_steps(stages(t)[0], steps) for t in trials]
    begin = [initial_of(t)[0] for t in trials]
    begin = [jax.tree.map(lambda a: a * np.nan, w) if s in broken else w for s, w in zip(lanes, begin, strict=True)]
    # Alone, a lane's data hold its own split; in a pack, those of ten lanes.
    data, splits = (data_of(*trials), [0]) if len(lanes) == 1 else (data_of(*map(scratch, range(10))), lanes)
    found = run_phase(trials, phases, data, begin, splits, placement=how)
    return dict(zip(lanes, found, strict=True))


def equal(a, b):
    return same(a.weights, b.weights) and (a.train_loss, a.val_loss) == (b.train_loss, b.val_loss)


def test_a_lane_has_the_bits_of_the_trial_alone_at_any_width_and_beside_any_neighbour():
    alone = {s: packed([s])[s] for s in (0, 3)}
    assert width_for(MAP, 1) == 2
    for lanes, width, bad in (([3, 0, 1], 4, {1}), (list(range(10)), 16, {4})):
        assert width_for(MAP, len(lanes)) == width
        together = packed(lanes, broken=bad)
        assert equal(together[0], alone[0])
        assert equal(together[3], alone[3])
        for s in bad:
            assert together[s].diverged_at == 0, "its very first loss is not a number"
        for s in set(lanes) - bad:
            assert together[s].diverged_at == (1 if RATES[s] == 1e30 else -1)
    assert not same(alone[0].weights, alone[3].weights)


def test_a_diverged_lane_says_at_which_step():
    """The loss of step 0 is that of the initial weights; the update by 1e30 is seen at step 1."""
    lane = packed([1])[1]
    assert lane.diverged_at == 1
    assert not np.isfinite(curves(lane)).any()
    assert packed([1], steps=1)[1].diverged_at == -1


def test_vmap_agrees_with_map_after_a_step_from_one_state():
    one, two = packed([3, 0, 2], steps=1), packed([3, 0, 2], steps=1, how=VMAP)
    for s in one:
        assert gap(one[s].weights, two[s].weights) < 1e-5
        np.testing.assert_allclose(curves(one[s]), curves(two[s]), rtol=1e-5)
        np.testing.assert_allclose(one[s].val_loss["goal"], two[s].val_loss["goal"], rtol=1e-5)


def test_packs_are_cut_at_the_largest_width(monkeypatch):
    """Ten lanes in packs of four and fewer: the same bits as in one of sixteen."""
    together = packed(list(range(10)))
    monkeypatch.setattr(placement, "width_for", lambda how, lanes: width_for(how, lanes, 4))
    apart = packed(list(range(10)))
    assert all(same(apart[s].weights, together[s].weights) for s in (0, 3, 9))


def test_lanes_of_different_programs_are_refused():
    one, two = trial(regime="scratch"), trial(regime="random_probe")
    with pytest.raises(ValueError, match="must share their program and their steps"):
        run_phase([one, two], [stages(one)[0], stages(two)[0]], data_of(one, two), initial_of(one, two))


def test_a_program_is_compiled_once_whatever_its_numbers():
    packed([0])
    compiled = Compiled.compilations
    for n, lr, seed, steps in ((20, 0.1, 3, 5), (60, 0.3, 4, 17)):
        changes = {"data__target_size": n, "lr": lr, "seed": seed, "target__total_steps": steps}
        t = trial(regime="scratch", optimizer__weight_decay=0.01 * n, **changes)
        assert stages(t)[0].program == stages(trial(regime="scratch"))[0].program
        run_all(t)
    assert Compiled.compilations == compiled


# Selecting the best state.


def test_best_is_the_state_with_the_least_validation_loss_on_the_target():
    t = trial(regime="scratch", select="best", lr=0.3, target__total_steps=24, evaluations=6)
    initial, (stage,), data, (outcome,) = run_all(t)
    curve = outcome.val_loss["goal"]
    last = stages(trial(regime="scratch", lr=0.3))[0]
    assert last.program == dataclasses.replace(stage.program, select="last")
    reruns = [run_phase([t], [with_steps(last, k)], data, [initial], evaluations=1)[0] for k in outcome.steps]
    assert [r.val_loss["goal"][-1] for r in reruns] == curve
    best = int(np.argmin(curve))
    assert 0 < best < len(curve) - 1, "the case must be one in which the best state lies in between"
    assert same(outcome.weights, reruns[best].weights)
    assert not same(outcome.weights, reruns[-1].weights)
    # With a rate that breaks it at once, no evaluation is a number: the phase hands on what it got.
    broken = dataclasses.replace(stage, hypers=dataclasses.replace(stage.hypers, lr=1e30))
    (nothing,) = run_phase([t], [broken], data, [initial])
    assert np.isnan(nothing.val_loss["goal"]).all()
    assert same(nothing.weights, initial)


def test_note_goes_by_the_judges_that_have_labels_and_never_by_nan():
    joint = dataclasses.replace(stages(trial(regime="multitask"))[0].program, select="best")
    source = dataclasses.replace(stages(trial(regime="source"))[0].program, select="best")
    assert joint.tasks == ("kind", "rare", "goal")
    never = stages(trial(regime="source"))[0].hypers.arrays()

    def kept(program, losses, labels=(5, 5, 5)):
        """Return which of the states 1, 2, … is kept after these evaluations; 0 is the state at the start."""
        at = lambda k: {"w": np.float32(k)}  # noqa: E731
        sums = jnp.full(2, 3.0), jnp.full(2, 9)
        best = Best(jnp.float32(jnp.inf), at(0), {}, jnp.int32(0), jnp.int32(0))
        moving = TrainState(at(0), {}, {}, (), best, *sums, jnp.int32(-1))
        for k, values in enumerate(losses, 1):
            values, counts = jnp.asarray(values, jnp.float32), jnp.asarray(labels[: len(values)], jnp.int32)
            judged, now = (
                Judgement(jnp.zeros(len(values)), counts, values),
                dataclasses.replace(moving, trainable=at(k)),
            )
            moving = phase.track_best(program, never, now, judged)
            assert not moving.loss_sum.any() and not moving.labels.any()
            assert float(moving.trainable["w"]) == k
            assert int(moving.best.seen) == k
        assert int(moving.best.at) == int(moving.best.trainable["w"])
        return int(moving.best.at)

    nan = np.nan
    assert kept(joint, [(9, 9, 3.0), (0, 0, 4.0), (9, 9, 2.0), (0, 0, 2.0)]) == 3
    assert kept(joint, [(0, 0, nan), (0, 0, 5.0), (0, 0, nan)]) == 2
    assert kept(joint, [(0, 0, nan), (0, 0, nan)]) == 0
    assert kept(source, [(1.0, 5.0), (2.0, 2.0), (5.0, 1.0)]) == 2
    # A task without labels does not count; one that is NaN because training diverged does.
    assert kept(source, [(3.0, nan), (1.0, nan), (2.0, nan)], labels=(4, 0)) == 2
    assert kept(source, [(3.0, 3.0), (1.0, nan), (2.0, 2.0)], labels=(4, 4)) == 3
    assert kept(joint, [(nan, 9, 3.0), (0, nan, 2.0)], labels=(0, 0, 1)) == 2


# Fresh parts.


def test_fresh_parts_take_their_initial_values_and_the_rest_stays():
    initial = Weights({"backbone": {"a": {"w": 1}, "b": {"w": 2}}, "heads": {"x": {"w": 3}}}, {"mean": 4})
    weights = Weights({"backbone": {"a": {"w": 10}, "b": {"w": 20}}, "heads": {"x": {"w": 30}}}, {"mean": 40})
    assert freshen(weights, initial, ()) == weights
    head = freshen(weights, initial, ("heads/x/w",))
    assert head.params == {"backbone": weights.params["backbone"], "heads": initial.params["heads"]}
    assert head.state == weights.state
    trunk = freshen(weights, initial, ("backbone/a/w", "backbone/b/w"))
    assert trunk.params == {"backbone": initial.params["backbone"], "heads": weights.params["heads"]}
    assert trunk.state == initial.state


def test_predictions_are_the_models_outputs(finetuned):
    t, _, _, _, outcomes = finetuned
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    scaling = [(np.ones(8, np.float32), np.full(8, 2, np.float32), np.zeros(8, np.float32))] * 3
    weights = [outcomes[-1].weights, outcomes[0].weights, outcomes[-1].weights]
    found = predict(t.model(), ["goal"], weights, x, scaling)["goal"]
    assert found.shape == (3, 5, 1)
    for out, w in zip(found, weights, strict=True):
        h = (x - 1) * 2
        for name in ("dense_0", "dense_1"):
            h = np.maximum(h @ w.params["backbone"][name]["kernel"] + w.params["backbone"][name]["bias"], 0)
        head = w.params["heads"]["goal"]
        np.testing.assert_allclose(out, h @ head["kernel"] + head["bias"], atol=1e-5)
