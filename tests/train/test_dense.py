"""Training with dense tasks beside others: the same as a loop of optax that is written out, however it is run."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from mtl.balance import BALANCERS, Balancer
from mtl.balance import register as register_balancer
from mtl.data import make_table
from mtl.models import MODELS, register
from mtl.regimes import Phase
from mtl.train import phase
from mtl.train.placement import VMAP, Placement
from mtl.train.stacks import ordered, stacks_of
from tests.train import dense
from tests.train.build import gap, hypers_of, same
from tests.train.dense import by_hand, initial_of, run, stages, table, trial

SAMPLINGS = ("per_task", "rows", "temperature", "uniform", "one_task")


@pytest.fixture(autouse=True)
def registered():
    known = dict(MODELS), dict(BALANCERS)
    register("pixels_of_a_test")(dense.Pixels)
    yield
    for names, was in zip((MODELS, BALANCERS), known, strict=True):
        names.clear()
        names.update(was)


def bits(found):
    return [[(o.weights, o.train_loss, o.val_loss, o.diverged_at) for o in outcomes] for outcomes in found]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_joint_phase_is_a_loop_written_out(sampling):
    t = trial(joint_sampling=sampling, select="last")
    (stage,), (initial,) = stages(t), initial_of(t)
    ((outcome,),) = run([t])
    want, rested = by_hand(t, stage, initial.params)
    assert gap(outcome.weights.params, want) < 1e-6
    assert min(gap(outcome.weights.params[part], initial.params[part]) for part in initial.params) > 1e-2
    assert (rested > 0) == (sampling != "per_task"), "the case must be one in which heads rest"
    # The loss on validation labels: a mean over images that have some.
    split, labels = dense.split_of(t, table()), dense.coded(t)
    for task, (y, there) in labels.items():
        rows = np.flatnonzero(split.val[task])
        total = dense.sums(want, dense.raw_labels()[0][rows], {task: (y[rows], there[rows])})[task]
        assert outcome.val_loss[task][-1] == pytest.approx(float(total) / len(rows), rel=1e-4)


def test_heads_of_features_of_two_widths_are_two_stacks():
    (stage,) = stages(trial())
    assert stage.program.widths == tuple(5 if t == "day" else 4 for t in stage.program.tasks)
    assert sorted([t.name for t in s.tasks] for s in stacks_of(stage.program)) == [["day"], ["depth", "scene"]]


def test_micro_batches_add_up_to_the_batch():
    t = trial(joint_sampling="rows", accumulate=2)
    (initial,) = initial_of(t)
    ((outcome,),) = run([t])
    assert gap(outcome.weights.params, by_hand(t, stages(t)[0], initial.params)[0]) < 1e-6


def test_pieces_of_one_row_add_up_to_the_batch():
    t = trial(joint_sampling="per_task", accumulate=4)
    (initial,) = initial_of(t)
    ((outcome,),) = run([t])
    assert gap(outcome.weights.params, by_hand(t, stages(t)[0], initial.params)[0]) < 1e-6


def test_two_devices_train_as_one():
    t = trial(joint_sampling="rows")
    (initial,) = initial_of(t)
    ((outcome,),) = run([t], placement=Placement("map", data=2))
    assert gap(outcome.weights.params, by_hand(t, stages(t)[0], initial.params)[0]) < 1e-6
    ((one,),) = run([t])
    for task in one.val_loss:
        np.testing.assert_allclose(outcome.val_loss[task], one.val_loss[task], rtol=1e-4)


def test_an_average_of_weights_is_that_of_the_loop():
    t = trial(joint_sampling="rows", optimizer__ema=0.75)
    (initial,) = initial_of(t)
    ((outcome,),) = run([t])
    want, rested = by_hand(t, stages(t)[0], initial.params, ema=0.75)
    assert rested
    assert gap(outcome.weights.params, want) < 1e-6


# --- balancers ---

SHOWN = []


def balancer(*needs):
    @register_balancer("shown_in_a_test")
    def make():
        def update(state, seen):
            kept = {n: getattr(seen, n) for n in ("losses", "features", "jacobian") if getattr(seen, n) is not None}
            jax.debug.callback(lambda k: SHOWN.append(jax.tree.map(np.asarray, k)), kept)
            return jnp.ones(len(seen.active)), state

        return Balancer(lambda tasks: (), update, needs, 0)

    SHOWN.clear()
    return "shown_in_a_test"


@pytest.mark.parametrize("sampling", ["per_task", "rows"])
def test_balancers_are_shown_each_tasks_own_gradients(sampling):
    """At the trunk and at the features, against gradients taken one by one; equal weights are the plain sum."""
    t = trial(
        joint_sampling=sampling, balancer__name=balancer("losses", "features", "jacobian"), source__total_steps=1,
        target__total_steps=1, evaluations=1,
    )  # fmt: skip
    (stage,), (initial,) = stages(t), initial_of(t)
    ((outcome,),) = run([t], evaluations=1)
    jax.effects_barrier()
    shown = SHOWN[0]
    rows, mask = next(dense.draws(t, stage))
    x, labels = dense.raw_labels()[0][rows], dense.batch_of(dense.coded(t), rows, mask)
    for i, task in enumerate(t_.name for t_ in ordered(stage.program)):
        own = {task: labels[task]}
        total = lambda backbone, own=own, task=task: dense.sums({**initial.params, "backbone": backbone}, x, own)[task]  # noqa: E731
        row = ravel_pytree(jax.grad(total)(initial.params["backbone"]))[0] / len(rows)
        np.testing.assert_allclose(shown["jacobian"][i], row, atol=1e-6 * np.abs(shown["jacobian"]).max())
        assert shown["losses"][i] == pytest.approx(
            float(total(initial.params["backbone"])) / max(mask[task].sum(), 1), rel=1e-5
        )
    # Each task has features of its own, at which no other task has a gradient.
    seen = dict(zip(("pixels", "whole"), dense.features(initial.params["backbone"], x), strict=True))
    want = []
    for task in (t_.name for t_ in ordered(stage.program)):
        own = "whole" if task == "day" else "pixels"
        total = lambda f, own=own, task=task: dense.sums_at(  # noqa: E731
            initial.params["heads"], {**seen, own: f}, {task: labels[task]}
        )[task]
        want.append(float(jnp.sum(jnp.square(jax.grad(total)(seen[own]) / len(rows)))))
    np.testing.assert_allclose(shown["features"], np.diag(want), rtol=1e-4, atol=1e-9)
    plain = trial(joint_sampling=sampling, source__total_steps=1, target__total_steps=1, evaluations=1)
    ((want,),) = run([plain], evaluations=1)
    assert gap(outcome.weights.params, want.weights.params) < 1e-6


# --- what moves, and what is frozen ---


def test_an_adapter_of_low_rank_is_the_loop_with_products_beside_the_kernels():
    """LoRA on the layer that pixels pass: W + (α/r) A B, of which only A and B move, and the head."""
    only = Phase(adapt=("lora", {"rank": 1, "alpha": 3.0}))
    t = trial(regime="mine", regimes={"mine": (only,)})
    (stage,), (initial,) = stages(t), initial_of(t)
    begun = phase.adapted(stage.program, hypers_of(stage), initial.params)["backbone"]
    moving = {layer: {k: begun[layer]["+lora"][k] for k in "ab"} for layer in begun}

    def merged(parts):
        backbone = {
            layer: {"kernel": begun[layer]["kernel"] + 3 * own["a"] @ own["b"], "bias": begun[layer]["bias"]}
            for layer, own in parts["backbone"].items()
        }
        return {**parts, "backbone": backbone}

    ((outcome,),) = run([t])
    want, _ = by_hand(t, stage, {**initial.params, "backbone": moving}, change=merged)
    found = outcome.weights.params
    assert gap({**found, "heads": {"scene": found["heads"]["scene"]}}, want) < 1e-6
    assert gap(found["backbone"]["first"], initial.params["backbone"]["first"]) > 1e-3
    assert same(found["backbone"]["second"], initial.params["backbone"]["second"])
    assert same(found["heads"]["depth"], initial.params["heads"]["depth"])


@pytest.mark.parametrize("target", ["scene", "depth"])
def test_features_of_tasks_that_are_computed_once_train_as_those_computed_at_every_step(target):
    source = ("day", "depth") if target == "scene" else ("day", "scene")
    sizes = {} if target == "scene" else {"data__target_size": 8, "data__target_pool": 10, "data__test_size": 8}
    t = trial(regime="linear_probe", data__source=source, data__target=target, target__total_steps=80, **sizes)
    assert stages(t)[1].program.cached
    once = run([t])
    online = run([t], edit=lambda s: dataclasses.replace(s, program=dataclasses.replace(s.program, cached=False)))
    assert gap(once[1][0].weights, online[1][0].weights) < 1e-6
    assert gap(once[1][0].weights.params["heads"][target], once[0][0].weights.params["heads"][target]) > 1e-3
    np.testing.assert_allclose(once[1][0].val_loss[target], online[1][0].val_loss[target], rtol=1e-5)


# --- how it is run ---


@pytest.mark.slow
def test_a_pack_has_the_bits_of_each_trial_alone_and_side_by_side_its_numbers():
    trials = [trial(seed=seed, lr=lr) for seed, lr in ((0, 0.02), (0, 0.01), (1, 0.02))]
    together, beside = run(trials)[0], run(trials, placement=VMAP)[0]
    for i, outcome in enumerate(together):
        assert same(bits(run(trials, alone=i)), bits([[outcome]]))
        assert gap(outcome.weights, beside[i].weights) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["multitask_finetune", "linear_probe"])
def test_a_stream_of_inputs_trains_to_the_bits_of_memory(regime, monkeypatch):
    pytest.importorskip("grain", reason='needs the extra: pip install "mtl[stream]"')
    from mtl.train import stream

    monkeypatch.setattr(stream, "WINDOW_BYTES", 16 * 4 * 24)
    monkeypatch.setattr(stream, "_MOST_STEPS", 2)
    of = dense.streamed()
    assert of.sha256 == table().sha256
    trials = [trial(regime=regime, seed=seed, target__total_steps=40) for seed in (0, 1)]
    assert same(bits(run(trials, of)), bits(run(trials)))


def test_a_dense_source_with_shuffled_labels_trains_on_whole_maps_of_other_images():
    t, plain = trial(data__shuffle_source_labels=True), trial()
    split, truth = dense.split_of(t, table()), dense.split_of(plain, table())
    shown = split.train["depth"] | split.val["depth"]
    assert set(split.labels["depth"][shown]) == set(truth.labels["depth"][shown])
    assert (split.labels["depth"][shown] != truth.labels["depth"][shown]).any()
    (stage,), (initial,) = stages(t), initial_of(t)
    ((outcome,),) = run([t])
    # Of the day, which is shuffled too, a row that has the label will do.
    day = dense.raw_labels()[1]["day"]
    maps = {
        "depth": split.labels["depth"],
        "scene": np.arange(dense.ROWS),
        "day": np.asarray([int(np.flatnonzero(day == y)[0]) for y in split.labels["day"]]),
    }
    assert gap(outcome.weights.params, by_hand(t, stage, initial.params, maps)[0]) < 1e-6


# --- labels in any unit ---


def test_labels_far_off_zero_keep_their_digits():
    """At 1e6 ± 1 the network is that of labels at 0 ± 1; float32 has a spacing of 1/16 there."""
    t = trial()
    ((far,),), ((near,),) = run([t]), run([t], table(0.0))
    assert gap(far.weights, near.weights) < 1e-5
    np.testing.assert_allclose(far.val_loss["depth"], near.val_loss["depth"], rtol=1e-4)


@pytest.mark.parametrize("times", [1024.0, 1000.0])
def test_the_unit_of_labels_decides_nothing(times):
    t = trial()
    ((one,),), ((other,),) = run([t], table(0.0)), run([t], table(0.0, times))
    if math.log2(times).is_integer():
        assert same(one.weights, other.weights)
    assert gap(one.weights, other.weights) < 1e-6
    np.testing.assert_allclose(one.val_loss["scene"], other.val_loss["scene"], rtol=1e-5)


def test_one_label_far_off_in_the_test_set_spoils_no_digits():
    """What is held on the device is the same affine image of labels whatever stands in rows that no phase sees."""
    x, labels = dense.raw_labels(0.0)
    t = trial()
    split = dense.split_of(t, table(0.0))
    unseen = np.flatnonzero(~(split.train["depth"] | split.val["depth"]) & table(0.0).mask["depth"])
    spoiled = labels["depth"].copy()
    spoiled[unseen[0]] = 1e12
    of = make_table("toy", x, dense.TASKS, {**labels, "depth": spoiled}, pixels=False)
    ((one,),), ((other,),) = run([t], table(0.0)), run([t], of)
    assert gap(one.weights, other.weights) < 1e-5
