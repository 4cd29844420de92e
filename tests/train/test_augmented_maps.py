"""Labels of pixels go where their pixels go: images whose pixels say their label still say it, whatever is done."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl.config import ConfigError, augmentation
from mtl.models import MODELS, register
from mtl.sweep.plan import check_images
from mtl.tasks import Task
from mtl.train.augment import change, draw
from mtl.train.program import Indices
from tests.train import dense

ROWS, HEIGHT, WIDTH, CLASSES = 64, 7, 5, 9


def labelled():
    """Images of which a pixel is (1 + class) / 16, and the other channel is the number; some labels are missing."""
    rng = np.random.default_rng(0)
    ids = rng.integers(CLASSES, size=(ROWS, HEIGHT, WIDTH))
    numbers = rng.uniform(0.1, 0.9, size=ids.shape).astype(np.float32)
    x = np.stack([(1 + ids) / 16, numbers], axis=-1).astype(np.float32)
    return jnp.asarray(x), {"c": (ids.astype(np.int32), rng.random(ids.shape) < 0.8), "r": (numbers, ids >= 0)}


def changed(*operations, rows=ROWS):
    x, labels = labelled()
    spec = augmentation.parse(operations)
    plain = Indices(jnp.arange(rows), jnp.ones((rows, 2), bool))
    drawn = draw(spec, jax.random.key(3), plain)
    found, moved = change(spec, drawn, lambda i: (x[i], jax.tree.map(lambda a: jnp.asarray(a)[i], labels)))
    return np.asarray(found), jax.tree.map(np.asarray, moved)


OUTSIDE = {
    "flip": lambda x: np.zeros(x.shape[:3], bool),
    "crop reflect": lambda x: np.zeros(x.shape[:3], bool),
    "crop zeros": lambda x: x[..., 0] == 0,
    "cutout": lambda x: x[..., 0] == 1,
    "all": lambda x: (x[..., 0] == 0) | (x[..., 0] == 1),
}
OPERATIONS = {
    "flip": ("flip",),
    "crop reflect": (("crop", {"padding": 2}),),
    "crop zeros": (("crop", {"padding": 3, "mode": "zeros"}),),
    "cutout": (("cutout", {"size": 3, "fill": 1.0, "probability": 0.7}),),
    "all": (("crop", {"padding": 2, "mode": "zeros"}), "flip", ("cutout", {"size": 2, "fill": 1.0})),
}


@pytest.mark.parametrize("case", OPERATIONS)
def test_a_pixel_keeps_its_label(case):
    x, moved = changed(*OPERATIONS[case])
    before, labels = labelled()
    assert (np.abs(x - np.asarray(before)).max(axis=(1, 2, 3)) > 0).sum() > ROWS // 3, "the case must change images"
    outside = OUTSIDE[case](x)
    ids, there = moved["c"]
    assert ids.dtype == np.int32
    assert there.dtype == bool
    np.testing.assert_array_equal(ids[there], np.rint(16 * x[..., 0] - 1)[there])
    numbers, all_there = moved["r"]
    np.testing.assert_array_equal(numbers[all_there], x[..., 1][all_there])
    # What had a label has it still; what comes from outside, or is cut out, has none.
    np.testing.assert_array_equal(all_there, ~outside)
    assert not there[outside].any()
    if case == "flip":
        mirrored = (x[:, :, ::-1] == np.asarray(before)).all(axis=(1, 2, 3))
        kept = (x == np.asarray(before)).all(axis=(1, 2, 3))
        assert mirrored.any() and kept.any() and (mirrored | kept).all()
        want = np.where(mirrored[:, None, None], labels["c"][1][:, :, ::-1], labels["c"][1])
        np.testing.assert_array_equal(there, want)


def test_missing_labels_go_with_their_pixels():
    """By a third channel that says which pixels have a label."""
    x, labels = labelled()
    x = jnp.concatenate([x, jnp.asarray(labels["c"][1], jnp.float32)[..., None]], axis=-1)
    spec = augmentation.parse((("crop", {"padding": 2, "mode": "zeros"}), "flip"))
    drawn = draw(spec, jax.random.key(4), Indices(jnp.arange(ROWS), jnp.ones((ROWS, 2), bool)))
    found, moved = change(spec, drawn, lambda i: (x[i], jax.tree.map(lambda a: jnp.asarray(a)[i], labels)))
    np.testing.assert_array_equal(moved["c"][1], found[..., 2] == 1)


def test_colours_leave_labels_alone():
    x, moved = changed("colour")
    _, labels = labelled()
    for task in labels:
        for a, b in zip(moved[task], labels[task], strict=True):
            np.testing.assert_array_equal(a, b)
    assert (x != np.asarray(labelled()[0])).any()


@pytest.mark.parametrize("name", ["mixup", "cutmix", "randaugment"])
def test_what_does_not_change_labels_of_pixels_is_refused(name):
    tasks = (Task("b", "binary"), Task("scene", "segmentation", num_classes=3, shape=(7, 5)))
    with pytest.raises(
        ValueError, match=rf"augment: {name} does not change labels of pixels, and scene has some: leav"
    ):
        augmentation.parse((name,), tasks)
    assert augmentation.parse((name,), tasks[:1])


@pytest.fixture
def pixels():
    known = dict(MODELS)
    register("pixels_of_a_test")(dense.Pixels)
    yield
    MODELS.clear()
    MODELS.update(known)


def test_labels_that_are_not_one_a_pixel_do_not_go_with_pixels():
    tasks = (Task("coarse", "segmentation", num_classes=3, shape=(3, 2)),)
    x = np.zeros((4, 7, 5, 1), np.float32)
    with pytest.raises(
        ValueError, match=r"augment: coarse has labels at \(3, 2\) and images of toy are \(7, 5\): must"
    ):
        augmentation.check_images(augmentation.parse(("flip",), tasks), x, "toy", tasks)
    augmentation.check_images(augmentation.parse(("colour",), tasks), x, "toy", tasks)


def test_a_phase_is_asked_for_its_own_tasks_only(pixels):
    """Where only the source is dense, a phase on the target may mix rows."""
    from mtl.regimes import Phase

    sizes = {"data__source": ("scene",), "data__target": "day", "data__normalize": "none"}
    own = (Phase(tasks="source", augment="none"), Phase(augment=("mixup",)))
    t = dense.trial(regime="mine", regimes={"mine": own}, **sizes)
    assert [len(p.augment) for p in t.phases] == [0, 1]
    with pytest.raises(ConfigError, match="mixup does not change labels of pixels, and scene has some"):
        dense.trial(regime="mine", regimes={"mine": (Phase(tasks="source", augment=("mixup",)), Phase())}, **sizes)


def test_a_phase_trains_on_images_changed_with_their_labels(pixels):
    """Where all pixels say their label, a model of pixels learns it as well from images that are changed."""
    import dataclasses

    of = dense.table()
    x = np.asarray(dense.raw_labels()[1]["scene"] + 1, np.float32)[..., None].repeat(2, axis=-1) / 4
    of = dataclasses.replace(of, x=x)
    changes = {"regime": "scratch", "source__total_steps": 60, "target__total_steps": 60, "lr": 0.3}
    spec = (("crop", {"padding": 1, "mode": "zeros"}), "flip")
    t, plain = dense.trial(augment=spec, **changes), dense.trial(**changes)
    check_images(t, of)
    last = {k: dense.run([v], of)[0][0].val_loss["scene"][-1] for k, v in {"changed": t, "plain": plain}.items()}
    assert last["changed"] < 0.35 and abs(last["changed"] - last["plain"]) < 0.15, last
