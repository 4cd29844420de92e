"""Lanes and batches spread over devices: the same numbers, and no exchange but the gradients'."""

import dataclasses
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from mtl import params as paths
from mtl.train import pack, phase, placement
from mtl.train.placement import Placement, PlacementError, parse, width_for
from mtl.train.program import Frozen
from tests.train.build import (
    curves,
    data_of,
    gap,
    hypers_of,
    initial_of,
    run_all,
    run_phase,
    same,
    stages,
    trial,
    with_steps,
)

DATA, TRIAL = Placement("map", data=2), Placement("vmap", trial=2)


def collectives(program, how, data, initial, lane):
    """Return the (operation, bytes) of every collective in the compiled step of a phase."""
    moving, frozen = begun(program, how, initial, lane)
    whole = jax.ShapeDtypeStruct((), np.int32)
    text = pack.advance_fn(program, how).executable(whole, lane, moving, Frozen(frozen), data, whole, whole).as_text()
    found = []
    for line in text.splitlines():
        match = re.search(
            r"= (\S+) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(", line
        )
        if match:
            shape = re.fullmatch(r"\(?f32\[(\d*)\](?:\{.*\})?\)?", match[1])
            found.append((match[2], 4 * int(shape[1] or 1) if shape else match[1]))
    return found


def begun(program, how, initial, lanes):
    """Return the shapes of (what moves, what is frozen) of a pack."""
    whole = jax.tree.map(lambda a: np.stack([a] * len(lanes.seed)), initial)
    trainable, frozen = phase.divide(program, whole.params)
    return jax.eval_shape(pack.begin_fn(program, how), lanes, trainable, whole.state), frozen


@pytest.mark.parametrize("regime", ["multitask", pytest.param("finetune", marks=pytest.mark.slow)])
def test_two_devices_train_as_one(regime):
    t = trial(regime=regime, optimizer__clip=0.0)
    _, _, data, one = run_all(t)
    two = run_all(t, data, placement=DATA)[3]
    for a, b in zip(one, two, strict=True):
        assert gap(a.weights, b.weights) < 1e-5
        np.testing.assert_allclose(curves(a), curves(b), rtol=1e-4)
        for task in a.val_loss:
            np.testing.assert_allclose(a.val_loss[task], b.val_loss[task], rtol=1e-4)


@pytest.mark.parametrize(
    "denominator", ["examples", *(pytest.param(d, marks=pytest.mark.slow) for d in ("labels", "tasks"))]
)
def test_devices_exchange_the_trainable_gradients_once_and_nothing_else(denominator):
    t = trial(regime="gradual", source_sampling="rows", loss__denominator=denominator)
    data, (initial,) = data_of(t), initial_of(t)
    for stage in stages(t)[:3]:
        program = dataclasses.replace(stage.program, cached=False)
        moving, _ = phase.start(program, hypers_of(stage), initial)
        lane = placement_lane(stage)
        assert collectives(program, DATA, data, initial, lane) == [("all-reduce", 4 * paths.count(moving.trainable))]


def placement_lane(stage):
    from mtl.train.trial import make_hypers

    return make_hypers([0, 1], [stage, stage], [0, 0])


@pytest.mark.slow
def test_trials_side_by_side_on_two_devices_exchange_nothing():
    trials = [trial(regime="scratch", seed=s) for s in range(3)]
    data, initial = data_of(*trials), initial_of(*trials)
    phases = [with_steps(stages(t)[0], 1) for t in trials]
    alone = run_phase(trials, phases, data, initial, evaluations=1)
    apart = run_phase(trials, phases, data, initial, evaluations=1, placement=TRIAL)
    for a, b in zip(alone, apart, strict=True):
        assert gap(a.weights, b.weights) < 1e-5
        assert b.width == 4
    assert collectives(phases[0].program, TRIAL, data, initial[0], placement_lane(phases[0])) == []


def test_a_lane_at_equal_width_has_the_same_bits_whatever_its_neighbours():
    """What is missing of a pack runs again in padded lanes; and a neighbour that breaks leaves its bits alone."""
    trials = [trial(regime="scratch", seed=s) for s in range(4)]
    data, initial = data_of(*trials), initial_of(*trials)
    phases = [stages(t)[0] for t in trials]
    whole = run_phase(trials, phases, data, initial, placement=TRIAL)
    broken = [
        dataclasses.replace(p, hypers=dataclasses.replace(p.hypers, lr=1e30)) if i == 1 else p
        for i, p in enumerate(phases)
    ]
    beside = run_phase(trials, broken, data, initial, placement=TRIAL)
    assert beside[1].diverged_at == 1
    again = run_phase(trials[2:3], phases[2:3], data, initial[2:3], splits=[2], placement=TRIAL, width=4)
    assert same(again[0].weights, whole[2].weights)
    for i in (0, 2, 3):
        assert same(beside[i].weights, whole[i].weights)


@pytest.mark.slow
def test_micro_batches_add_up_to_the_batch():
    for denominator in ("examples", "labels", "tasks"):
        whole, parts = (
            trial(regime="source", loss__denominator=denominator, accumulate=k, optimizer__clip=0.0) for k in (1, 4)
        )
        _, _, data, (one,) = run_all(whole)
        (two,) = run_all(parts, data)[3]
        assert gap(one.weights, two.weights) < 1e-5
        np.testing.assert_allclose(curves(one), curves(two), rtol=1e-5)
    both = run_all(trial(regime="source", accumulate=2, optimizer__clip=0.0), placement=DATA)[3]
    single = run_all(trial(regime="source", optimizer__clip=0.0))[3]
    assert gap(both[0].weights, single[0].weights) < 1e-5


@pytest.mark.slow
def test_widths_are_halved_until_they_fit(monkeypatch):
    trials = [trial(regime="scratch", seed=s) for s in range(8)]
    data, initial = data_of(*trials), initial_of(*trials)
    phases = [with_steps(stages(t)[0], 2) for t in trials]
    program, told = phases[0].program, []
    free = run_phase(trials, phases, data, initial, evaluations=1, placement=placement.VMAP)
    assert {o.width for o in free} == {8}

    def needed(width):
        lanes = jax.tree.map(lambda a: np.repeat(a[:1], width, axis=0), placement_lane(phases[0]))
        moving, frozen = begun(program, placement.VMAP, initial[0], lanes)
        whole = jax.ShapeDtypeStruct((), np.int32)
        return pack.advance_fn(program, placement.VMAP).memory(whole, lanes, moving, Frozen(frozen), data, whole, whole)

    assert needed(2) < needed(4) < needed(8)
    monkeypatch.setenv("MTL_MEMORY_LIMIT", str(needed(4)))
    found = run_phase(
        trials, phases, data, initial, evaluations=1, placement=placement.VMAP, on_width=lambda *a: told.append(a)
    )
    assert {o.width for o in found} == {4}
    assert told == [(8, needed(8), needed(4))]
    assert all(gap(a.weights, b.weights) < 1e-5 for a, b in zip(free, found, strict=True))
    monkeypatch.setenv("MTL_MEMORY_LIMIT", "1000")
    with pytest.raises(PlacementError, match=r"needs .* MiB of memory, and there are 0 MiB: lower batch_size"):
        run_phase(trials, phases, data, initial, evaluations=1, placement=placement.VMAP)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:4", "asks for 4 devices, and there are 2"),
        ("trial:0", "must be like trial:2,data:4"),
        ("date:2", "must be like trial:2,data:4"),
        ("data", "must be like trial:2,data:4"),
        ("data:-1", "must be like trial:2,data:4"),
    ],
)
def test_meshes_that_cannot_be(text, message):
    with pytest.raises(PlacementError, match=message):
        parse(text, "cpu", 2)


def test_a_mesh_that_does_not_divide_the_batch_is_refused():
    t = trial(regime="scratch", batch_size=7)
    with pytest.raises(PlacementError, match=r"batch_size = 7: must be a multiple of 2 devices"):
        run_all(t, placement=DATA)


def test_widths():
    assert [width_for(TRIAL, n) for n in (1, 3, 500)] == [2, 4, 256]
    assert width_for(Placement("vmap", trial=8), 1) == 8


EIGHT = """
import jax, numpy as np
from mtl.train.placement import MAP, Placement
from tests.train.build import gap, run_all, trial
assert jax.device_count() == 8
t = trial(regime="multitask", batch_size=32, accumulate={accumulate}, target__total_steps=25, evaluations=2,
          source__total_steps=75, optimizer__clip=0.0, lr=0.003)
one, eight = (run_all(t, placement=e)[3][0] for e in (MAP, Placement("map", data=8)))
both = run_all(t, placement=Placement("vmap", trial=2, data=4))[3][0]
print(len(one.steps), one.steps[-1], gap(one.weights, eight.weights), gap(one.weights, both.weights))
"""


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_eight_devices_against_one_after_a_hundred_steps(accumulate):
    script = "import os\nos.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'\n" + EIGHT
    done = subprocess.run(
        [sys.executable, "-c", script.format(accumulate=accumulate)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    _, steps, eight, both = done.stdout.split()
    assert int(steps) == 100
    assert float(eight) < 1e-6
    assert float(both) < 1e-6


MESH = """
import argparse, os, sys
from mtl.commands.start import add_options, begin
from mtl.train.placement import PlacementError
parser = argparse.ArgumentParser()
add_options(parser)
try:
    placement = begin(parser.parse_args([sys.argv[1]]))
    print(placement, placement.mesh.devices.size)
except PlacementError as error:
    print(error)
"""


@pytest.mark.parametrize("flags", ["", "--xla_force_host_platform_device_count=3"])
def test_a_mesh_takes_the_cores_of_a_cpu_unless_told_of_other_devices(flags):
    there = 3 if flags else len(os.sched_getaffinity(0))
    said = []
    for asked in (there, there + 1):
        done = subprocess.run(
            [sys.executable, "-c", MESH, f"--mesh=data:{asked}"],
            capture_output=True, text=True, check=False, env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.strip())
    assert said[0] == f"map data:{there} {there}" if there > 1 else said[0] == "map 1"
    assert f"asks for {there + 1} devices, and there " in said[1]
