"""Stratifying by many tasks at once: shares near the ideal in every prefix, sizes exact, groups whole."""

import itertools

import numpy as np
import pytest

from mtl.data import digits_table
from mtl.data.splits import _strata
from mtl.data.stratified import stratified


def tasks(count, positive, missing, rows=1000, seed=0):
    """Return the marks of binary tasks: positive, negative, or neither where the label is missing."""
    rng = np.random.default_rng(seed)
    yes, here = rng.random((rows, count)) < positive, rng.random((rows, count)) >= missing
    marks = np.concatenate([yes & here, ~yes & here], axis=1)
    return marks[marks.any(axis=1)]


def digits():
    table = digits_table()
    marks = []
    for task in table.tasks:
        strata = _strata(table, task.name)
        marks += [strata == c for c in range(strata.max() + 1)]
    return np.stack(marks, axis=1)


def strays(marks, order):
    """Return by how many rows the count of each mark is off its share, for each prefix, [prefixes, marks]."""
    counts = np.cumsum(marks[order], axis=0)
    return np.abs(counts - np.arange(1, len(order) + 1)[:, None] * marks.mean(axis=0))


def iterative(marks, size, rng):
    """Return ``size`` rows by iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011), sizes exact."""
    rows = len(marks)
    left = marks.sum(axis=0).astype(float)
    wanted, room = np.stack([left * size / rows, left * (rows - size) / rows]), [size, rows - size]
    part, order = np.full(rows, -1), rng.permutation(rows)
    while all(room) and left.any():
        rarest = np.argmin(np.where(left > 0, left, np.inf))
        for row in order[(part[order] < 0) & marks[order, rarest]]:
            if not all(room):
                break
            to = int(np.argmax(wanted[:, rarest]))
            part[row] = to
            wanted[to] -= marks[row]
            left -= marks[row]
            room[to] -= 1
    undecided = order[part[order] < 0]
    part[undecided[: room[0]]] = 0
    return np.flatnonzero(part == 0)


CASES = {
    "two tasks": tasks(2, 0.3, 0.0),
    "ten rare tasks": tasks(10, 0.1, 0.0),
    "forty tasks": tasks(40, 0.2, 0.0),
    "twelve rare tasks, a quarter of the labels missing": tasks(12, 0.08, 0.25),
    "digits, whose tasks hang together": digits(),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_every_prefix_has_each_mark_within_three_rows_of_its_share(name, seed):
    marks = CASES[name]
    order = stratified(marks, len(marks), np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(order), np.arange(len(marks)))
    off = strays(marks, order)
    # Equal chances for every row leave less to choose from: of many tasks at once a row more strays.
    most, mean = {"forty tasks": (4, 2.2), "twelve rare tasks, a quarter of the labels missing": (4, 1.7)}.get(
        name, (3, 1.7)
    )
    assert off.max() < most
    assert off.max(axis=1).mean() < mean  # The worst of all marks, in a prefix of the mean.
    by_chance = strays(marks, np.random.default_rng(seed).permutation(len(marks)))
    assert off.max(axis=1).mean() < by_chance.max(axis=1).mean() / 3


@pytest.mark.parametrize("grouped", [False, True])
def test_which_labels_meet_in_a_row_is_drawn_as_by_chance(grouped):
    """Rows that are positive for many tasks are as likely as others to be drawn: an assay of cells that die, say.

    The oracle is the hypergeometric law of a plain draw, over whose mean of 40 draws five standard errors are allowed.
    """
    rng = np.random.default_rng(0)
    yes = rng.random((800, 8)) < np.where(rng.random(800) < 0.1, 0.5, 0.03)[:, None]
    marks = np.concatenate([yes, ~yes], axis=1)
    groups = np.sort(rng.integers(600, size=800)) if grouped else None
    count, size, draws = np.bincount(yes.sum(axis=1), minlength=9), 80, 40
    drawn = [yes[stratified(marks, size, np.random.default_rng(seed), groups)] for seed in range(draws)]
    found = np.mean([np.bincount(rows.sum(axis=1), minlength=9) for rows in drawn], axis=0)
    wanted, left = size * count / 800, 1 - count / 800
    assert count[3:].sum() > 50
    assert (np.abs(found - wanted) < 5 * np.sqrt(wanted * left / draws) + 1e-9).all()


@pytest.mark.parametrize("name", CASES)
def test_it_is_nearer_to_the_shares_than_iterative_stratification(name):
    marks = CASES[name]
    size = len(marks) // 5

    def off(rows):
        return np.abs(marks[rows].sum(axis=0) - size * marks.mean(axis=0)).mean()

    ours = np.mean([off(stratified(marks, size, np.random.default_rng(seed))) for seed in range(5)])
    usual = np.mean([off(iterative(marks, size, np.random.default_rng(seed))) for seed in range(5)])
    assert ours < 1
    assert ours <= usual + 0.2


@pytest.mark.parametrize("seed", range(10))
def test_of_few_rows_it_is_within_a_row_of_the_best_subset_there_is(seed):
    marks = tasks(3, 0.4, 0.2, rows=12, seed=seed)
    size = len(marks) // 2

    def off(rows):
        return np.abs(marks[list(rows)].sum(axis=0) - size * marks.mean(axis=0)).max()

    best = min(map(off, itertools.combinations(range(len(marks)), size)))
    assert off(stratified(marks, size, np.random.default_rng(seed))) <= best + 1


def test_smaller_draws_are_the_first_of_larger_ones_and_another_stream_draws_others():
    marks = CASES["ten rare tasks"]
    large = stratified(marks, 300, np.random.default_rng(1))
    np.testing.assert_array_equal(stratified(marks, 20, np.random.default_rng(1)), large[:20])
    assert set(stratified(marks, 300, np.random.default_rng(2))) != set(large)


@pytest.mark.parametrize("size", [1, 13, 200, 999, 1000])
def test_sizes_are_exact_and_at_most_one_group_is_parted(size):
    marks = tasks(4, 0.3, 0.1)
    groups = np.random.default_rng(0).zipf(1.7, size=len(marks)).clip(max=150)
    size = min(size, len(marks))
    drawn = stratified(marks, size, np.random.default_rng(0), groups)
    assert len(set(drawn.tolist())) == size
    rest = np.setdiff1d(np.arange(len(marks)), drawn)
    assert len(np.intersect1d(groups[drawn], groups[rest])) <= 1


def test_large_groups_are_drawn_as_small_ones_are():
    rng = np.random.default_rng(0)
    counts = np.where(rng.random(400) < 0.1, 40, rng.integers(1, 4, size=400))
    groups = np.repeat(np.arange(400), counts)
    marks = np.repeat(rng.random((400, 6)) < 0.3, counts, axis=0)
    marks = np.concatenate([marks, ~marks], axis=1)
    drawn = stratified(marks, len(marks) // 4, np.random.default_rng(0), groups)
    large = counts[groups] == 40
    assert 0.17 < np.isin(np.flatnonzero(large), drawn).mean() < 0.33
    assert np.abs(marks[drawn].mean(axis=0) - marks.mean(axis=0)).max() < 0.06


def test_one_group_alone_gives_some_of_its_rows():
    assert len(stratified(np.ones((9, 1), bool), 4, np.random.default_rng(0), np.zeros(9, int))) == 4


def test_no_row_is_asked_for_and_none_is_drawn():
    assert stratified(np.ones((3, 1), bool), 0, np.random.default_rng(0)).tolist() == []
