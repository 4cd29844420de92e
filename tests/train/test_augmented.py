"""Training on images changed at random: the same bits however it is run, and nothing but training changed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mtl.config import ConfigError
from mtl.data import make_table
from mtl.params import flatten
from mtl.regimes import Phase
from mtl.tasks import Task
from mtl.train import loop
from mtl.train.augment import changed
from mtl.train.placement import MAP, VMAP, Placement
from mtl.train.program import Frozen
from mtl.train.sampling import make_gather, make_sampler, part
from tests.train import build
from tests.train.build import curves, data_of, gap, hypers_of, initial_of, run_all, run_phase, same, stages, trial

EVERYTHING = (("crop", {"padding": 1}), ("mixup", {"probability": 0.7}), "flip")
NOTHING = (("flip", {"probability": 0.0}), ("mixup", {"probability": 0.0}))
ROWS = 240


def images():
    """Three tasks over 240 images of 4×6 pixels, whose first pixel names the row."""
    rng = np.random.default_rng(0)
    x = rng.random((ROWS, 4, 6, 1)).astype(np.float32)
    x[:, 0, 0, 0] = np.arange(ROWS) / ROWS
    score = x[:, 1].sum(axis=(1, 2)) - x[:, 2].sum(axis=(1, 2))
    rare = np.where(np.arange(ROWS) % 5 == 0, (score > 0.3).astype(float), np.nan)
    goal = np.where(np.arange(ROWS) % 7 == 3, np.nan, (score > 0).astype(float))
    tasks = (Task("kind", "multiclass", num_classes=3), Task("rare", "binary"), Task("goal", "binary"))
    return make_table("images", x, tasks, {"kind": np.digitize(score, (-0.5, 0.5)), "rare": rare, "goal": goal})


TABLE = images()


@pytest.fixture(autouse=True)
def of_images(monkeypatch):
    """The tests' trials are on images."""
    monkeypatch.setattr(build, "table", lambda: TABLE)


def drawn(t, number=0, steps=50):
    """A phase's first batches as they come, changed, and as they were: (changed, plain), stacked."""
    stage, data = stages(t)[number], data_of(t)

    def of(program):
        lane = hypers_of(stage, t.seed)
        own = data.of(lane.split)
        sample = changed(program, lane, make_sampler(program, lane, own))
        gather = make_gather(program, own, Frozen({}))
        return build.by_task(program, jax.jit(jax.vmap(lambda i: gather(sample(i))))(jnp.arange(steps)))

    program = dataclasses.replace(stage.program, cached=False)
    return tuple(
        jax.tree.map(np.asarray, of(p)) for p in (program, dataclasses.replace(program, augment=(), standardize=False))
    )


# What a batch holds.


def test_images_are_changed_before_they_are_standardised():
    t = trial(regime="scratch", augment=(("flip", {"probability": 1.0}),), data__normalize="standardize")
    found, plain = drawn(t)
    data = data_of(t)
    shift, scale = np.asarray(data.shift[0]), np.asarray(data.scale[0])
    np.testing.assert_allclose(found.x, (plain.x[..., ::-1, :] - shift) * scale, atol=1e-6)
    after = ((plain.x - shift) * scale)[..., ::-1, :]
    assert np.abs(found.x - after).max() > 0.01, "the other order is told apart"


def test_a_row_is_changed_differently_each_time_and_with_each_seed():
    t = trial(regime="scratch", augment=("flip",))
    found, plain = drawn(t)
    flipped = (found.x != plain.x).any(axis=(2, 3, 4))
    assert 0.4 < flipped.mean() < 0.6 and len({row.tobytes() for row in flipped}) > 40
    other, _ = drawn(trial(regime="scratch", augment=("flip",), seed=1))
    assert not np.array_equal(found.x, other.x)


def test_regimes_see_the_same_changed_target_batches():
    crop = (("crop", {"padding": 1}),)
    scratch, _ = drawn(trial(regime="scratch", augment=crop), steps=12)
    joint, _ = drawn(trial(regime="multitask", augment=crop), steps=12)
    shown = joint.mask["goal"]
    np.testing.assert_allclose(joint.x[shown], scratch.x.reshape(-1, 4, 6, 1), atol=1e-6)
    # And two phases go on with one sequence.
    second, _ = drawn(trial(regime="lp_ft", augment=crop), number=2, steps=6)
    np.testing.assert_allclose(second.x, scratch.x[6:], atol=1e-6)


@pytest.mark.parametrize("sampling", ["per_task", "temperature", "one_task"])
def test_where_rows_show_one_task_mixing_loses_no_label(sampling):
    found, plain = drawn(trial(regime="multitask", augment=("mixup",), joint_sampling=sampling))
    for task in plain.mask:
        np.testing.assert_array_equal(found.mask[task], plain.mask[task])
    shown = found.labels["kind"][found.mask["kind"]]
    np.testing.assert_allclose(shown.sum(axis=-1), 1, atol=1e-6)
    assert ((shown > 0) & (shown < 1)).any(axis=-1).mean() > 0.2


def test_where_rows_show_all_their_labels_one_is_left_if_both_rows_have_it():
    found, plain = drawn(trial(regime="multitask", augment=("mixup",), joint_sampling="rows"), steps=200)
    for task in ("rare", "goal"):
        share = plain.mask[task].mean()
        assert found.mask[task].mean() == pytest.approx(share**2, abs=0.05)
        assert not (found.mask[task] & ~plain.mask[task]).any()


@pytest.mark.parametrize("sampling", ["per_task", pytest.param("rows", marks=pytest.mark.slow)])
def test_any_part_of_a_batch_is_that_part_of_the_whole(sampling):
    t = trial(regime="multitask", augment=(*EVERYTHING, ("cutmix", {"alpha": 0.5})), joint_sampling=sampling)
    (stage,), data = stages(t), data_of(t)
    lane, program = hypers_of(stage), stage.program
    own = data.of(lane.split)
    gather = make_gather(program, own, Frozen({}))
    whole = jax.jit(changed(program, lane, make_sampler(program, lane, own)))(jnp.int32(5))
    one = jax.jit(gather)(whole)
    each = jax.jit(jax.vmap(lambda i: gather(part(program, whole, i, 4))))(jnp.arange(4))
    blocks = program.rows // program.batch
    for got, want in zip(jax.tree.leaves(each), jax.tree.leaves(one), strict=True):
        rows = np.stack(np.split(np.asarray(want).reshape(blocks, 4, -1, *want.shape[1:]), 4, axis=1))
        np.testing.assert_allclose(np.ravel(got), rows.ravel(), atol=1e-6)


@pytest.mark.slow
def test_the_loss_of_a_mixed_batch_is_its_definition():
    t = trial(regime="multitask", augment=("mixup",), joint_sampling="rows", target__total_steps=8)
    (stage,), data, (initial,) = stages(t), data_of(t), initial_of(t)
    (outcome,) = run_phase([t], [build.with_steps(stage, 1)], data, [initial], evaluations=1)
    batch, _ = drawn(t, steps=1)
    params = jax.tree.map(jnp.asarray, initial.params)
    outputs, _ = t.model().apply(params, initial.state, jnp.asarray(batch.x[0]), tasks=stage.program.tasks)
    for task in stage.program.tasks:
        z, y, m = np.asarray(outputs[task], np.float64), batch.labels[task][0], batch.mask[task][0]
        if task == "kind":
            each = -(y * scipy.special.log_softmax(z, axis=-1)).sum(axis=-1)
        else:
            p = scipy.special.expit(z[:, 0])
            each = -(y * np.log(p) + (1 - y) * np.log1p(-p))
        mean = each[m].mean() if m.any() else np.nan
        assert outcome.train_loss[task][0] == pytest.approx(mean, rel=1e-5, nan_ok=True)


# The same bits.


@pytest.mark.slow
def test_operations_that_change_nothing_keep_every_bit():
    changes = {"regime": "multitask", "data__normalize": "standardize"}
    _, _, data, (plain,) = run_all(trial(**changes))
    (same_images,) = run_all(trial(augment=NOTHING[:1], **changes), data)[3]
    assert same(plain.weights, same_images.weights)
    assert (plain.train_loss, plain.val_loss) == (same_images.train_loss, same_images.val_loss)
    (soft,) = run_all(trial(augment=NOTHING, **changes), data)[3]  # Ids became probabilities.
    assert gap(plain.weights, soft.weights) < 1e-6


@pytest.fixture(scope="module")
def whole():
    """Everything at once, in as few calls as evaluations allow: (trial, initial weights, stages, data, outcomes)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "table", lambda: TABLE)
        t = trial(regime="multitask_finetune", augment=EVERYTHING)
        yield t, *run_all(t)


def test_a_phase_cut_at_every_step_has_the_same_bits(whole):
    t, initial, _, data, outcomes = whole
    cut = run_all(t, data, initial, chunk_seconds=0.0)[3]
    for a, b in zip(outcomes, cut, strict=True):
        assert same(a.weights, b.weights) and (a.train_loss, a.val_loss) == (b.train_loss, b.val_loss)


def test_a_lane_in_a_pack_has_the_bits_of_the_trial_alone(whole):
    t, initial, _phases, _data, outcomes = whole
    trials = [t, *(trial(regime="multitask_finetune", augment=EVERYTHING, seed=s) for s in (1, 2))]
    begin = [initial, *initial_of(*trials[1:])]
    together = run_phase(trials, [stages(u)[0] for u in trials], data_of(*trials), begin)
    assert same(together[0].weights, outcomes[0].weights)
    assert not same(together[1].weights, outcomes[0].weights)


@pytest.mark.slow
def test_side_by_side_a_step_is_the_same():
    trials = [trial(regime="multitask", augment=EVERYTHING, seed=s) for s in range(3)]
    first, begin, data = [build.with_steps(stages(u)[0], 1) for u in trials], initial_of(*trials), data_of(*trials)
    one, other = (run_phase(trials, first, data, begin, evaluations=1, placement=how) for how in (MAP, VMAP))
    assert all(gap(a.weights, b.weights) < 1e-5 for a, b in zip(one, other, strict=True))


class Once(loop.Checkpointer):
    """Keeps a snapshot at the first chance and stops; the next time it goes on from there."""

    def __init__(self):
        self.kept = None

    def restore(self):
        return self.kept

    def boundary(self, take):
        if self.kept is None:
            self.kept = take()
            raise loop.Stopped


def test_a_phase_gone_on_with_has_the_bits_of_one_undisturbed(whole):
    t, initial, phases, data, outcomes = whole
    guard = Once()
    options = {"guard_of": lambda part: guard, "chunk_seconds": 0.0}
    with pytest.raises(loop.Stopped):
        run_phase([t], phases[:1], data, [initial], **options)
    assert 0 < guard.kept.at < phases[0].steps
    (resumed,) = run_phase([t], phases[:1], data, [initial], **options)
    assert same(resumed.weights, outcomes[0].weights) and resumed.train_loss == outcomes[0].train_loss


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["per_task", pytest.param("rows", marks=pytest.mark.slow)])
def test_devices_and_micro_batches_give_what_one_device_gives(sampling):
    changes = {"augment": EVERYTHING, "optimizer__clip": 0.0, "joint_sampling": sampling}
    _, _, data, (one,) = run_all(trial(regime="multitask", **changes))
    parts = trial(regime="multitask", accumulate=2, **changes)
    (other,) = run_all(parts, data, placement=Placement("map", data=2))[3]
    assert gap(one.weights, other.weights) < 1e-5
    np.testing.assert_allclose(curves(one), curves(other), rtol=1e-4)


# What is not changed.


def test_validation_sees_images_as_they_are():
    """With a rate of nearly nothing no weight moves, so all that could differ is what validation sees."""
    still = {"regime": "scratch", "lr": 1e-30, "optimizer__weight_decay": 0.0}
    _, _, data, (plain,) = run_all(trial(**still))
    (augmented,) = run_all(trial(augment=EVERYTHING, **still), data)[3]
    assert gap(plain.weights, augmented.weights) < 1e-20
    assert plain.val_loss == augmented.val_loss
    assert plain.train_loss != augmented.train_loss


def test_a_frozen_trunk_runs_on_the_changed_images_and_stays_as_it_is():
    plain, crop = (trial(regime="random_probe", augment=a) for a in ((), (("crop", {"padding": 1}),)))
    assert stages(plain)[0].program.cached and not stages(crop)[0].program.cached
    _, _, data, (cached,) = run_all(plain)
    initial, _, _, (online,) = run_all(crop, data)
    kept = [p for p, a in flatten(initial.params).items() if np.array_equal(a, flatten(online.weights.params)[p])]
    assert {p.split("/")[0] for p in kept if "goal" not in p} == {"backbone", "heads"}
    assert gap(cached.weights, online.weights) > 1e-3
    nothing = run_all(trial(regime="random_probe", augment=NOTHING[:1]), data)[3]
    assert gap(cached.weights, nothing[0].weights) < 1e-5


# What a config says.


def test_a_config_without_augmentation_has_the_hash_it_always_had(monkeypatch):
    monkeypatch.undo()
    assert trial(regime="multitask").hash == "c763b58f7c4277c3"
    assert all("augment" not in p and "round_steps" not in p for p in trial(regime="lp_ft").config["phases"])


def test_one_spec_has_one_hash_however_it_is_written():
    one, two = (trial(augment=a) for a in (("flip",), [["flip", {"probability": 0.5}]]))
    assert one.hash == two.hash and one.phases == two.phases
    others = [trial(), trial(augment=("crop",)), trial(augment=(("flip", {"probability": 1}),))]
    assert len({t.hash for t in (one, *others)}) == 4
    assert trial(augment=(("flip", {"probability": 1}),)).hash == trial(augment=(("flip", {"probability": 1.0}),)).hash
    programs = {s.program for t in (one, *others) for s in stages(t)}
    assert len(programs) == 8, "each is a program of its own"


def test_a_phase_can_have_its_own():
    mine = (Phase(tasks="source", lr="source_lr", budget="source", augment="none"), Phase(augment=("cutout",)), Phase())
    t = trial(regime="mine", regimes__mine=mine, augment=("flip",))
    assert [[type(op).__name__ for op in p.augment] for p in t.phases] == [[], ["Cutout"], ["Flip"]]
    assert "augment" not in t.config["phases"][0]
    ridge = trial(regime="ridge_probe", augment=("flip",))
    assert [bool(p.augment) for p in ridge.phases] == [True, False]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"augment": ("flop",)}, 'config.augment: "flop" does not exist: did you mean "flip"?'),
        ({"augment": ("crop", {"padding": 1})}, "config.augment: {'padding': 1}: must be a name, or (name, {option"),
        ({"augment": "flip"}, "config.augment = 'flip': must be of type tuple"),
        (
            {"augment": ("mixup",), "task_options": {"goal": {"focal_gamma": 2.0}}},
            "config.augment: mixup mixes labels, and focal_gamma = 2 of goal judges whole ones: leave one of them out",
        ),
        ({"regimes__mine": (Phase(augment="flip"),)}, 'regime "mine": augment = "flip": must be "none", or a tuple'),
        ({"regimes__mine": (Phase(augment=("flop",)),)}, 'regime "mine": augment: "flop" does not exist'),
        (
            {"regimes__mine": (Phase(trainable="head", solver="ridge", augment=("flip",)),)},
            'regime "mine": solver = "ridge": sees each image once, as it is: leave augment out',
        ),
    ],
)
def test_what_cannot_be_is_refused(changes, line):
    with pytest.raises(ConfigError) as error:
        trial(**{"regime": "mine" if "regimes__mine" in changes else "multitask"} | changes)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_focal_factors_and_mixing_go_together_where_they_do_not_meet():
    trial(regime="scratch", augment=("mixup",), task_options={"kind": {"focal_gamma": 2.0}})
    trial(augment=("flip",), task_options={"goal": {"focal_gamma": 2.0}})
