"""Maps of road scenes: what they say is at a pixel is what drawing it changes there."""

import numpy as np
import pytest

import mtl.data
from mtl.data.counter import Counter
from mtl.data.sets.road_background import view
from mtl.data.sets.road_maps import CLASSES, Maps
from mtl.data.sets.road_scenes import TASKS, render

SIZE, OPTIONS = 32, {"examples": 80, "size": 32}


def scenes(**more):
    return mtl.data.load("road_scenes", **OPTIONS, **more)


def drawn(thing=None, rows=40):
    """(Images with one thing or none, by day and nothing before it; their maps)."""
    draw = Counter(0, np.arange(rows))
    present = {name: np.full(rows, name == thing) for name in TASKS}
    maps = Maps(view(draw, 0.0), SIZE)
    options = {"difficulty": 0.0, "relatedness": 0.0, "night": 0.0, "occlusion": 0.0, "clutter": 0.0}
    return render(draw, present, SIZE, maps=maps, **options).astype(int), maps


def test_images_and_their_labels_are_those_without_maps():
    with_maps, without = scenes(maps=True, missing=0.3), scenes(missing=0.3)
    np.testing.assert_array_equal(with_maps.x, without.x)
    for task in TASKS:
        np.testing.assert_array_equal(with_maps.labels[task], without.labels[task])
        np.testing.assert_array_equal(with_maps.mask[task], without.mask[task])
    assert [t.name for t in without.tasks] == list(TASKS)
    assert with_maps.classes["scene"] == CLASSES


@pytest.mark.parametrize("thing", TASKS)
def test_a_thing_is_where_drawing_it_changes_the_image(thing):
    (with_it, maps), (without, empty) = drawn(thing), drawn()
    changed = np.abs(with_it - without).max(axis=-1) > 12
    said = maps.classes == CLASSES.index(thing)
    assert not (empty.classes == CLASSES.index(thing)).any()
    both, either = (said & changed).sum(axis=(1, 2)), (said | changed).sum(axis=(1, 2))
    assert said.any(axis=(1, 2)).mean() > 0.9
    assert both.sum() / either.sum() > 0.6
    # Where it is not, the maps are those of the empty scene.
    np.testing.assert_array_equal(maps.classes[~said], empty.classes[~said])
    np.testing.assert_array_equal(maps.disparity[~said], empty.disparity[~said])


def test_a_thing_has_one_disparity_and_the_ground_more_the_lower():
    _, maps = drawn("car")
    car = CLASSES.index("car")
    for classes, disparity in zip(maps.classes, maps.disparity, strict=True):
        assert len(np.unique(disparity[classes == car])) <= 1
    _, empty = drawn()
    for disparity in empty.disparity:
        column = disparity[:, 0]
        below = ~np.isnan(column)
        assert (np.diff(np.flatnonzero(below)) == 1).all() and below[-1] and not below[0]
        assert (np.diff(column[below]) > 0).all()
        assert column[below].min() > 0 and column[below].max() <= 1
        np.testing.assert_array_equal(disparity, np.broadcast_to(column[:, None], disparity.shape))


def test_without_a_label_a_scene_has_no_map_and_rates_are_nested():
    few, many = scenes(maps=True, missing=0.2), scenes(maps=True, missing=0.6)
    whole = scenes(maps=True)
    for task in ("scene", "disparity"):
        assert few.mask[task].sum() > many.mask[task].sum() > 0
        assert not (many.mask[task] & ~few.mask[task]).any()
        np.testing.assert_array_equal(few.positions[task], whole.positions[task] & few.mask[task][:, None, None])
    assert whole.positions["scene"].all()


def test_a_scene_is_the_same_whichever_others_are_drawn():
    whole = scenes(maps=True)
    part = mtl.data.load("road_scenes", examples=30, size=SIZE, maps=True)
    for task in ("scene", "disparity"):
        np.testing.assert_array_equal(part.labels[task], whole.labels[task][:30])
