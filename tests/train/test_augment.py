"""Augmentation against Pillow and plain NumPy, its masks by what a hidden label may never do, and its keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import Image, ImageEnhance, ImageOps

from mtl.config.augmentation import OPERATIONS, parse
from mtl.data import road_scenes_table
from mtl.tasks import Task
from mtl.train import colour, geometry
from mtl.train.augment import change, draw
from mtl.train.colour import REACH
from mtl.train.program import Indices

X = jnp.asarray(road_scenes_table(examples=16, size=16).x)
KEY = jax.random.key(7)
TASKS = [Task("kind", "multiclass", num_classes=3), Task("goal", "binary"), Task("dose", "regression")]
LABELS = {
    "kind": jnp.arange(16, dtype=jnp.int32) % 3,
    "goal": (jnp.arange(16) % 2).astype(jnp.float32),
    "dose": jnp.arange(16, dtype=jnp.float32) / 4,
}
MASK = {t: jnp.asarray(np.random.default_rng(i).random(16) < 0.7) for i, t in enumerate(LABELS)}
COLOURS = {name: jax.jit(operation) for name, operation in colour.OPERATIONS.items()}
warp = jax.jit(geometry.warp, static_argnums=(1, 3))


def augment(spec, rng, x, labels, mask, alike=True):
    """Return (images, labels, masks) of a batch changed, labels and masks by task; a label that is not there is 0."""
    beside = jnp.stack([mask[t] for t in mask], axis=1) if mask else jnp.zeros((x.shape[0], 0), bool)
    drawn = draw(spec, rng, Indices(jnp.arange(x.shape[0]), beside), alike)
    images, mixed = change(spec, drawn, lambda rows: (x[rows], {t: y[rows] for t, y in labels.items()}))
    left = {t: drawn.mask[:, i] for i, t in enumerate(mask)}
    present = {t: left[t].reshape(-1, *[1] * (y.ndim - 1)) for t, y in mixed.items()}
    return images, {t: jnp.where(present[t], y, 0) for t, y in mixed.items()}, left


def run(*operations, key=KEY, x=X, labels=LABELS, mask=MASK, alike=True):
    return jax.tree.map(np.asarray, augment(parse(operations, TASKS), key, x, labels, mask, alike))


def many(*operations, times=200):
    """Images of many steps: [times, rows, height, width, channels]."""
    spec = parse(operations, TASKS)
    step = jax.jit(jax.vmap(lambda i: augment(spec, jax.random.fold_in(KEY, i), X, {}, {})[0]))
    return np.asarray(step(jnp.arange(times)))


# --- what each does ---


@pytest.mark.parametrize("mode", ["reflect", "zeros"])
def test_a_crop_is_a_window_of_the_padded_image_and_every_window_comes(mode):
    p = 2
    windows = {}
    padded = np.pad(np.asarray(X[0]), ((p, p), (p, p), (0, 0)), mode="reflect" if mode == "reflect" else "constant")
    for top in range(2 * p + 1):
        for left in range(2 * p + 1):
            windows[padded[top : top + 16, left : left + 16].tobytes()] = (top, left)
    drawn = [windows[image.tobytes()] for image in many(("crop", {"padding": p, "mode": mode}), times=600)[:, 0]]
    counts = np.bincount([5 * a + b for a, b in drawn], minlength=25)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_flips_come_at_their_rate_each_row_on_its_own():
    flipped = (many("flip") == np.asarray(X[:, :, ::-1])[None]).all(axis=(2, 3, 4))
    assert scipy.stats.binomtest(int(flipped.sum()), flipped.size, 0.5).pvalue > 1e-4
    pairs = np.corrcoef(flipped.T.astype(float))[np.triu_indices(16, 1)]
    assert np.abs(pairs).max() < 0.35
    assert np.array_equal(run(("flip", {"probability": 0.0}))[0], X)


def test_cutout_is_a_square_cut_off_at_the_border_with_its_centre_anywhere():
    out = many(("cutout", {"size": 5, "fill": 0.25}))[:, 0]
    changed = (out != np.asarray(X[0])[None]).any(axis=-1)
    assert np.array_equal(out[changed], np.full((changed.sum(), 3), 0.25, np.float32))
    for each in changed[:50]:
        rows, columns = np.flatnonzero(each.any(axis=1)), np.flatnonzero(each.any(axis=0))
        assert 3 <= np.ptp(rows) + 1 <= 5 and 3 <= np.ptp(columns) + 1 <= 5
    assert (changed.sum(axis=0) > 0).all()


def pixels(image):
    return Image.fromarray(np.rint(np.asarray(image) * 255).astype(np.uint8))


@pytest.mark.parametrize("m", [-1.0, -0.5, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("row", [0, 5])
def test_colours_are_those_of_pillow(m, row):
    factor = 1 + REACH * m
    expected = {
        "identity": lambda i: i,
        "brightness": lambda i: ImageEnhance.Brightness(i).enhance(factor),
        "contrast": lambda i: ImageEnhance.Contrast(i).enhance(factor),
        "saturation": lambda i: ImageEnhance.Color(i).enhance(factor),
        "autocontrast": ImageOps.autocontrast,
        "invert": ImageOps.invert,
        "posterize": lambda i: ImageOps.posterize(i, 8 - round(4 * abs(m))),
        "solarize": lambda i: ImageOps.solarize(i, 256 if m == 0 else int(np.ceil(255 * (1 - abs(m)) - 1e-4))),
    }
    assert expected.keys() == colour.OPERATIONS.keys()
    for name, of_pillow in expected.items():
        ours = np.asarray(COLOURS[name](X[row], jnp.float32(m))) * 255
        # Pillow rounds the grey image, its mean and the result to whole numbers.
        np.testing.assert_allclose(ours, np.asarray(of_pillow(pixels(X[row])), float), atol=2.5, err_msg=name)


def test_colours_stay_in_range_and_do_nothing_to_what_has_none():
    out = many(("colour", {"operations": 3, "magnitude": 1.0}), times=50)
    assert out.min() >= 0 and out.max() <= 1 and not np.isnan(out).any()
    assert len(np.unique(out[:, 0].reshape(50, -1), axis=0)) > 20
    flat = jnp.full((16, 16, 1), 0.5)
    for name in ("identity", "contrast", "saturation", "autocontrast"):
        np.testing.assert_allclose(COLOURS[name](flat, jnp.float32(0.7)), flat, atol=1e-6)


SCIPY = {
    "rotate": lambda m: ([[np.cos(a := np.deg2rad(30 * m)), -np.sin(a)], [np.sin(a), np.cos(a)]], (0, 0)),
    "shear_x": lambda m: ([[1, 0], [0.3 * m, 1]], (0, 0)),
    "shear_y": lambda m: ([[1, 0.3 * m], [0, 1]], (0, 0)),
    "translate_x": lambda m: (np.eye(2), (0, 0.45 * m)),
    "translate_y": lambda m: (np.eye(2), (0.45 * m, 0)),
}


@pytest.mark.parametrize("m", [-1.0, -0.4, 0.0, 0.7])
@pytest.mark.parametrize("name", SCIPY)
def test_places_are_those_of_scipy(name, m):
    assert list(geometry.OPERATIONS) == list(SCIPY)
    image = np.asarray(X[3][:12])  # Not square, so that the two sides are told apart.
    matrix, shift = SCIPY[name](m)
    sides = np.array(image.shape[:2])
    offset = (sides - 1) / 2 + np.array(shift) * sides - np.array(matrix) @ ((sides - 1) / 2)
    expected = [
        scipy.ndimage.affine_transform(image[..., c], matrix, offset, order=1, mode="grid-constant", cval=0.5)
        for c in range(3)
    ]
    ours = warp(jnp.asarray(image), list(SCIPY).index(name), jnp.float32(m), 0.5)
    np.testing.assert_allclose(ours, np.stack(expected, axis=-1), atol=1e-4)
    assert (np.abs(np.asarray(ours) - image).max() > 0.05) == (m != 0)


def test_a_quarter_of_magnitude_moves_pixels_as_pillow_does():
    """Of whole pixels there is nothing to interpolate: Pillow's affine transform gives the same bytes."""
    picture = pixels(X[2])
    for name, data in (("translate_x", (1, 0, 4, 0, 1, 0)), ("translate_y", (1, 0, 0, 0, 1, -4))):
        m = (4 if name == "translate_x" else -4) / 16 / geometry.SHARE
        expected = np.asarray(picture.transform((16, 16), Image.Transform.AFFINE, data))
        ours = warp(X[2], list(SCIPY).index(name), jnp.float32(m), 0.0)
        np.testing.assert_allclose(np.asarray(ours) * 255, expected, atol=0.01)


def test_randaugment_draws_every_operation_and_stays_in_range():
    out = many(("randaugment", {"operations": 1, "magnitude": 0.5, "fill": 0.0}), times=200)
    assert out.min() >= 0 and out.max() <= 1 and not np.isnan(out).any()
    expected = [op(X[0], jnp.float32(s)) for op in COLOURS.values() for s in (-0.5, 0.5)]
    expected += [warp(X[0], i, jnp.float32(s), 0.0) for i in range(len(geometry.OPERATIONS)) for s in (-0.5, 0.5)]
    gaps = np.abs(out[:, 0][:, None] - np.stack(expected)[None]).max(axis=(2, 3, 4))
    assert (gaps.min(axis=1) < 1e-4).all(), "each image is one operation of the image it was"
    places = gaps[:, 2 * len(colour.OPERATIONS) :] < 1e-4
    assert places.any(axis=0).all(), "both ways of every geometric operation come"
    assert scipy.stats.binomtest(int(places.any(axis=1).sum()), 200, 5 / 13).pvalue > 1e-4


# --- mixing ---


def shares(out, x=X):
    """For each row, (the other row, λ) that explain a mixed image, by least squares."""
    flat, images = np.asarray(x, np.float64).reshape(16, -1), np.asarray(out, np.float64).reshape(16, -1)
    found = []
    for i, image in enumerate(images):
        if np.array_equal(image, flat[i]):  # mixed with itself: any row explains it
            found.append((i, 1.0))
            continue
        fits = []
        for j in range(16):
            d = flat[i] - flat[j]
            share = 1.0 if i == j else float(np.dot(image - flat[j], d) / np.dot(d, d))
            fits.append((np.abs(flat[j] + share * d - image).max(), j, share))
        found.append(min(fits)[1:])
    return found


def test_mixup_mixes_images_labels_and_masks_alike():
    out, labels, mask = run(("mixup", {"alpha": 20.0}))  # near one half, so that both rows can be told
    for i, (j, share) in enumerate(shares(out)):
        np.testing.assert_allclose(out[i], share * X[i] + (1 - share) * X[j], atol=1e-5)
        for task in LABELS:
            both = bool(MASK[task][i] & MASK[task][j])
            assert bool(mask[task][i]) == both
            if both:
                one, other = (np.eye(3)[LABELS[task][r]] if task == "kind" else LABELS[task][r] for r in (i, j))
                np.testing.assert_allclose(labels[task][i], share * one + (1 - share) * other, atol=1e-5)
    assert labels["kind"].shape == (16, 3)


def test_the_share_follows_a_beta_distribution():
    spec = parse([("mixup", {"alpha": 0.4})])
    ones = {"a": jnp.ones(16)}
    x = jnp.zeros((16, 2, 2, 1)).at[:8].set(1.0)

    def step(i):
        return augment(spec, jax.random.fold_in(KEY, i), x, {"a": x[:, 0, 0, 0]}, {"a": ones["a"] > 0})[1]["a"]

    drawn = np.asarray(jax.jit(jax.vmap(step))(jnp.arange(500))).ravel()
    mixed = drawn[(drawn > 0) & (drawn < 1)]
    assert scipy.stats.kstest(mixed, scipy.stats.beta(0.4, 0.4).cdf).pvalue > 1e-4


def test_cutmix_takes_a_rectangle_and_its_share_of_the_labels():
    everything = {t: jnp.ones(16, bool) for t in LABELS}
    out, labels, mask = run("cutmix", mask=everything)
    flat = np.asarray(out)
    taken = 0
    for i in range(16):
        changed = (flat[i] != np.asarray(X[i])).any(axis=-1)
        if not changed.any():
            continue
        sources = [j for j in range(16) if j != i and (flat[i] == np.asarray(X[j])).all(axis=-1)[changed].all()]
        j = next(j for j in sources if abs(float(labels["dose"][i]) - float(LABELS["dose"][i])) > 0 or j)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1) / 256
        kept = (float(labels["dose"][i]) - float(LABELS["dose"][j])) / float(LABELS["dose"][i] - LABELS["dose"][j])
        # The rectangle may hold pixels at its border that are the same in both images.
        assert 1 - kept == pytest.approx(area, abs=0.15) and 1 - kept >= area - 1e-5
        taken += 1
    assert taken > 8 and all(bool(m.all()) for m in mask.values())


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_what_a_masked_slot_holds_changes_no_bit(name):
    worse = {
        "kind": jnp.where(MASK["kind"], LABELS["kind"], -7),
        **{t: jnp.where(MASK[t], LABELS[t], jnp.nan) for t in ("goal", "dose")},
    }
    one, other = run(name), run(name, labels=worse)
    assert jax.tree.all(jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), one, other))
    assert not any(np.isnan(np.asarray(y)).any() for y in other[1].values())
    assert all(not (np.asarray(one[2][t]) & ~np.asarray(MASK[t])).any() for t in MASK)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_row_that_is_not_mixed_stays_as_it_is(name):
    out, labels, mask = run((name, {"probability": 0.0}))
    assert np.array_equal(out, X) and all(np.array_equal(mask[t], MASK[t]) for t in MASK)
    for task in ("goal", "dose"):
        assert np.array_equal(labels[task], np.where(MASK[task], LABELS[task], 0))
    half = run((name, {"probability": 0.5, "alpha": 1.0}))[0]
    kept = (np.asarray(half) == np.asarray(X)).all(axis=(1, 2, 3))
    assert 2 <= kept.sum() <= 14


@pytest.mark.parametrize("task", [np.arange(16) // 4, np.array([2, 0, 0, 1, 3, 2, 2, 0, 3, 1, 0, 2, 0, 2, 2, 0])])
def test_where_a_row_shows_one_task_it_is_mixed_with_rows_of_the_same_one(task):
    owner = {t: jnp.asarray(task == i) for i, t in enumerate("abcd")}
    labels = {t: jnp.ones(16) for t in owner}
    seen = set()
    for i in range(20):
        key = jax.random.key(i)
        out, _, mask = run(("mixup", {"alpha": 20.0}), labels=labels, mask=owner, alike=False, key=key)
        pairs = [(a, b) for a, (b, _) in enumerate(shares(out))]
        assert all(task[a] == task[b] for a, b in pairs)
        assert all(np.array_equal(mask[t], owner[t]) for t in owner)
        seen |= set(pairs)
    same = {(a, b) for a in range(16) for b in range(16) if task[a] == task[b]}
    assert len(seen) > 0.8 * len(same), "any row of the task can be the other one"
    lost = run(("mixup", {"alpha": 1.0}), labels=labels, mask=owner)[2]
    assert sum(int(m.sum()) for m in lost.values()) < 12


def test_mixup_and_cutmix_can_follow_each_other():
    _, labels, _ = run("mixup", "cutmix", mask={t: jnp.ones(16, bool) for t in LABELS})
    np.testing.assert_allclose(labels["kind"].sum(axis=1), 1, atol=1e-5)


# --- keys, shapes, gradients ---


def test_the_same_key_changes_alike_and_another_does_not():
    everything = ("crop", "flip", "mixup")
    one, two = run(*everything), run(*everything)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, two))
    assert not np.array_equal(one[0], run(*everything, key=jax.random.key(8))[0])
    spec = parse(everything, TASKS)
    inside = jax.jit(lambda k: augment(spec, k, X, LABELS, MASK)[0])(KEY)
    np.testing.assert_allclose(inside, one[0], atol=1e-5)
    assert one[0].shape == X.shape and one[0].dtype == X.dtype
    assert hash(spec) == hash(parse(everything, TASKS)) and spec == parse(everything, TASKS)


def test_an_operation_before_does_not_change_what_one_after_draws_elsewhere():
    only_labels = run(("crop", {"padding": 1}), "mixup")[1]
    again = run(("crop", {"padding": 3}), "mixup")[1]
    assert all(np.array_equal(only_labels[t], again[t]) for t in only_labels)


def test_no_operation_is_no_change():
    out, labels, mask = augment((), KEY, X, LABELS, MASK)
    assert np.array_equal(out, X) and all(np.array_equal(mask[t], MASK[t]) for t in MASK)
    assert all(np.array_equal(labels[t], np.where(MASK[t], LABELS[t], 0)) for t in LABELS)


@pytest.mark.parametrize(
    ("operations", "line"),
    [
        (["flop"], 'augment: "flop" does not exist: did you mean "flip"?'),
        ([("crop", {"pading": 1})], 'crop has no option "pading": did you mean "padding"?'),
        ([("crop", {"padding": 0})], "crop.padding = 0: must be a whole number from 1 to 512"),
        ([("crop", {"padding": 1.5})], "crop.padding = 1.5: must be a whole number"),
        ([("crop", {"mode": "wrap"})], "crop.mode = 'wrap': must be"),
        ([("flip", {"probability": 1.5})], "flip.probability = 1.5: must be a number from 0 to 1"),
        ([("mixup", {"alpha": float("nan")})], "mixup.alpha = nan: must be a number from"),
        ([("mixup", {"classes": ()})], 'mixup has no option "classes"'),
        ([("colour", {"magnitude": True})], "colour.magnitude = True"),
        ([3], "augment: 3: must be a name"),
    ],
)
def test_what_cannot_be_is_refused(operations, line):
    with pytest.raises(ValueError) as error:
        parse(operations)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_what_shapes_cannot_be_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="class ids are mixed only where their number is known"):
        augment(parse(["mixup"]), KEY, X, LABELS, MASK)
    assert set(OPERATIONS) == {"crop", "flip", "cutout", "colour", "randaugment", "mixup", "cutmix"}
