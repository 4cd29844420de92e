"""Which rows and labels a batch shows, how often, and which sequence of batches a regime sees."""

import functools
from collections import Counter
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mtl.config import ConfigError
from mtl.train import threefry
from mtl.train.sampling import below
from tests.train.build import (
    batches,
    data_of,
    initial_of,
    rows_of,
    run_all,
    run_phase,
    same,
    split_of,
    stages,
    table,
    trial,
    with_steps,
)

TASKS = ("kind", "rare", "goal")


@functools.cache
def draw(regime, phase=0, seed=0, **changes):
    """Return (a phase's first 400 batches, stacked; its stage; the split)."""
    t = trial(regime=regime, seed=seed, **changes)
    stage = stages(t)[phase]
    return batches(stage, data_of(t), seed), stage, split_of(t)


MODES = ("per_task", "rows", "temperature", "uniform", "one_task")


@pytest.mark.parametrize("sampling", MODES)
def test_rows_have_a_training_label_of_the_task_they_show(sampling):
    batch, _, split = draw("multitask", joint_sampling=sampling)
    rows = rows_of(batch.x)
    np.testing.assert_array_equal(table().x[rows], batch.x)
    for task in TASKS:
        shown = rows[batch.mask[task]]
        assert split.train[task][shown].all()
        assert set(shown) == set(np.flatnonzero(split.train[task])), "every training row is drawn some time"
        assert not (split.val[task] | split.test[task])[shown].any()
        np.testing.assert_array_equal(batch.labels[task][batch.mask[task]], table().labels[task][shown])
    assert not split.test["goal"][rows].any()


def test_per_task_batches_hold_b_labels_of_each_task_and_show_only_these():
    batch, stage, _ = draw("multitask", joint_sampling="per_task")
    assert stage.program.rows == 3 * 8 == batch.x.shape[1]
    for task in TASKS:
        assert (batch.mask[task].sum(axis=1) == 8).all()
    assert (sum(batch.mask[t].astype(int) for t in TASKS) == 1).all()


def test_per_task_rows_are_uniform():
    batch, _, split = draw("multitask", joint_sampling="per_task")
    for task in TASKS:
        counts = Counter(rows_of(batch.x)[batch.mask[task]].tolist())
        assert stats.chisquare([counts[r] for r in np.flatnonzero(split.train[task])]).pvalue > 1e-3


def test_batches_of_rows_show_all_labels_of_rows_that_are_uniform():
    batch, stage, split = draw("multitask", joint_sampling="rows")
    assert stage.program.rows == 8 == batch.x.shape[1]
    rows = rows_of(batch.x)
    for task in TASKS:
        np.testing.assert_array_equal(batch.mask[task], split.train[task][rows])
    assert any((batch.mask["kind"] & batch.mask["rare"]).ravel()), "a row can show two labels"
    pool = np.flatnonzero(np.any([split.train[t] for t in TASKS], axis=0))
    counts = Counter(rows.ravel().tolist())
    assert stats.chisquare([counts[r] for r in pool]).pvalue > 1e-3
    for task in TASKS:  # So a task's share of labels is its share of the rows.
        n, size = split.train[task].sum(), rows.size
        assert stats.binomtest(int(batch.mask[task].sum()), size, n / len(pool)).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_temperature_draws_tasks_by_their_labels_to_a_power(temperature):
    batch, _, split = draw("multitask", joint_sampling="temperature", temperature=temperature)
    assert (sum(batch.mask[t].astype(int) for t in TASKS) == 1).all()
    owners = np.array([batch.mask[t].sum() for t in TASKS])
    share = np.array([float(split.train[t].sum()) for t in TASKS]) ** (1 / temperature)
    assert stats.chisquare(owners, owners.sum() * share / share.sum()).pvalue > 1e-3
    for task in TASKS:  # Within a task, rows are uniform.
        counts = Counter(rows_of(batch.x)[batch.mask[task]].tolist())
        assert stats.chisquare([counts[r] for r in np.flatnonzero(split.train[task])]).pvalue > 1e-3


def target_rows(regime, phase, steps=12):
    batch, stage, _ = draw(regime, phase)
    shown = zip(batch.x[:steps], batch.mask["goal"][:steps], strict=True)
    return [rows_of(x[m]).tolist() for x, m in shown], stage


def test_all_regimes_see_the_same_target_batches():
    expected, _ = target_rows("scratch", 0)
    assert target_rows("finetune", 1)[0] == expected
    assert target_rows("linear_probe", 1)[0] == expected
    assert target_rows("multitask", 0)[0] == expected
    assert len({tuple(rows) for rows in expected}) == len(expected), "every step has a batch of its own"


def test_two_target_phases_continue_one_sequence():
    expected, _ = target_rows("scratch", 0)
    first, head = target_rows("lp_ft", 1, 6)
    second, whole = target_rows("lp_ft", 2, 6)
    assert (head.steps, head.hypers.offset, whole.hypers.offset) == (6, (0,), (6,))
    assert first + second == expected


def test_a_phase_after_a_joint_one_continues_too():
    joint, target = stages(trial(regime="multitask_finetune"))
    assert (joint.hypers.offset, target.hypers.offset) == ((0, 0, 0), (joint.steps,))


def test_another_seed_draws_other_batches():
    one, two = (draw("scratch", 0, seed)[0] for seed in (0, 1))
    assert not np.array_equal(one.x, two.x)


# Integers below a bound.


@jax.jit
def scaled(bits, count):
    """``below`` of bits that are given."""
    with mock.patch.object(threefry, "bits", return_value=bits):
        return below(jax.random.key(0), bits.shape[0], count)


EDGES = [0, 1, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFF0000, 0xFFFFFFFE, 0xFFFFFFFF]
integers = st.integers(0, 2**32 - 1) | st.sampled_from(EDGES)
counts = st.integers(1, 2**31 - 1) | st.integers(1, 70000) | st.sampled_from([1, 2, 2**16, 2**16 + 1, 2**31 - 1])


@given(bits=st.lists(integers, min_size=5, max_size=5), count=counts)
def test_below_is_exact(bits, count):
    found = scaled(np.asarray(bits, np.uint32), np.int32(count))
    assert found.tolist() == [(b * count) >> 32 for b in bits]
    assert all(0 <= v < count for v in found.tolist())


@given(count=counts)
def test_below_gives_every_integer_its_share(count):
    """The least bits that give i are ⌈i 2³²/n⌉: shares differ by one in 2³² at most."""
    values = sorted({i for i in (0, 1, count // 3, count // 2, count - 1) if i < count})[:5]
    least = [-(-(i << 32) // count) for i in values]
    bits = np.zeros(5, np.uint32)
    bits[: len(least)] = least
    assert scaled(bits, np.int32(count)).tolist()[: len(least)] == values
    bits[: len(least)] = [max(b - 1, 0) for b in least]
    assert scaled(bits, np.int32(count)).tolist()[: len(least)] == [max(v - 1, 0) for v in values]


@pytest.mark.parametrize("count", [7, 100])
def test_below_is_uniform(count):
    found = np.asarray(below(jax.random.key(1), 20000, count))
    assert stats.chisquare(np.bincount(found, minlength=count)).pvalue > 1e-3


def test_below_takes_a_bound_for_each():
    bounds = jnp.asarray([1, 5, 1000] * 50)
    found = np.asarray(below(jax.random.key(2), 150, bounds))
    assert ((found >= 0) & (found < bounds)).all()
    assert found[2::3].max() > 5


# Schedules of one task a step.


def owners(batch):
    """Return which task each batch belongs to, all of whose rows show that one label."""
    shown = np.stack([batch.mask[t] for t in TASKS], axis=1)
    assert (shown.sum(axis=1) == 1).all() and (shown.all(axis=2).sum(axis=1) == 1).all()
    return shown[:, :, 0].argmax(axis=1)


def test_one_task_a_step_comes_once_a_round_in_an_order_of_its_own():
    batch, stage, split = draw("multitask", joint_sampling="one_task")
    assert stage.program.rows == 8 == batch.x.shape[1]
    rounds = owners(batch)[:399].reshape(-1, 3)
    np.testing.assert_array_equal(np.sort(rounds, axis=1), np.tile([0, 1, 2], (133, 1)))
    orders = Counter(map(tuple, rounds.tolist()))
    assert len(orders) == 6 and stats.chisquare(list(orders.values())).pvalue > 1e-3
    other, _, _ = draw("multitask", seed=1, joint_sampling="one_task")
    assert not np.array_equal(owners(other), owners(batch))
    for k, task in enumerate(TASKS):
        counts = Counter(rows_of(batch.x)[owners(batch) == k].ravel().tolist())
        assert stats.chisquare([counts[r] for r in np.flatnonzero(split.train[task])]).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_longer_rounds_give_each_task_its_share_exactly(temperature):
    batch, _, split = draw("multitask", joint_sampling="one_task", round_steps=20, temperature=temperature)
    n = np.array([float(split.train[t].sum()) for t in TASKS])
    wanted = 17 * n ** (1 / temperature) / (n ** (1 / temperature)).sum()
    turns = np.floor(wanted).astype(int)
    turns[np.argsort(turns - wanted)[: 17 - turns.sum()]] += 1
    rounds = owners(batch).reshape(-1, 20)
    for each in rounds:
        np.testing.assert_array_equal(np.bincount(each, minlength=3), 1 + turns)
    assert len({tuple(each) for each in rounds.tolist()}) == len(rounds)


def test_one_task_sees_the_same_target_batches_as_any_regime():
    batch, _, _ = draw("multitask", joint_sampling="one_task")
    target = [rows_of(x).tolist() for x in batch.x[owners(batch) == 2]]
    assert target[:12] == target_rows("scratch", 0)[0]


def test_uniform_draws_every_task_as_often():
    batch, _, _ = draw("multitask", joint_sampling="uniform")
    assert (sum(batch.mask[t].astype(int) for t in TASKS) == 1).all()
    assert stats.chisquare([batch.mask[t].sum() for t in TASKS]).pvalue > 1e-3


def test_in_a_schedule_only_the_head_of_the_steps_task_moves():
    t = trial(regime="multitask", joint_sampling="one_task")
    (stage,), data, (before,) = stages(t), data_of(t), initial_of(t)
    order = owners(draw("multitask", joint_sampling="one_task")[0])
    for step in (1, 2, 3):
        (outcome,) = run_phase([t], [with_steps(stage, step)], data, [before], evaluations=1)
        moved = {
            task for task in TASKS if not same(outcome.weights.params["heads"][task], before.params["heads"][task])
        }
        assert moved == {TASKS[k] for k in order[:step]}


def test_a_schedule_cut_at_every_step_has_the_same_bits():
    t = trial(regime="multitask", joint_sampling="one_task", round_steps=7)
    initial, _, data, whole = run_all(t)
    cut = run_all(t, data, initial, chunk_seconds=0.0)[3]
    assert same(whole[0].weights, cut[0].weights) and whole[0].train_loss == cut[0].train_loss


def test_a_round_without_a_task_is_refused():
    with pytest.raises(ConfigError, match=r"config.round_steps = 2: must be 0, or at least 3: a round has each task"):
        trial(regime="multitask", joint_sampling="one_task", round_steps=2)
    alone = trial(regime="scratch", joint_sampling="one_task", round_steps=2)
    assert alone.hash == trial(regime="scratch").hash, "a phase of one task is the same under every way of mixing"
    assert trial(regime="multitask", joint_sampling="one_task").phases[0].round_steps == 0
