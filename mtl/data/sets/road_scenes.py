"""Drawn road scenes: is there a stop sign, a pedestrian, a car, a traffic light? As many images as a study needs."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import numpy as np

from mtl.data.counter import Counter, mix
from mtl.data.picture import unit
from mtl.data.sets.drawing import Array, Patch
from mtl.data.sets.road_background import View, background, view
from mtl.data.sets.road_maps import CLASSES, Maps, map_tasks
from mtl.data.sets.road_objects import DRAW, EXTENTS, Colours
from mtl.data.table import Table, make_table
from mtl.tasks import Task

#: The tasks, in order.
TASKS = ("stop_sign", "pedestrian", "car", "traffic_light")

# What is drawn, from the back to the front.
_ORDER = ("lamp_post", "round_sign", "traffic_light", "stop_sign", "car", "pedestrian", "tree")

# Size of each thing (height; length of the car) in image heights, at difficulty 0 and middle depth.
_SIZES = {
    "stop_sign": 0.60,
    "pedestrian": 0.47,
    "car": 0.50,
    "traffic_light": 0.66,
    "round_sign": 0.55,
    "lamp_post": 0.62,
}

# The largest factor of a size: depth, and the thing's own.
_LARGEST = 1.25

# How far from a thing's middle a tree stands that hides part of it, and how high the tree is, in the thing's units.
_HIDING = {"stop_sign": (0.36, 1.05), "pedestrian": (0.32, 1.15), "car": (0.48, 0.62), "traffic_light": (0.31, 1.1)}

# Images drawn at once: few enough to stay in the processor's cache.
_CHUNK = 64


def road_scenes_table(
    examples: int = 2000,
    size: int = 64,
    seed: int = 0,
    difficulty: float = 0.3,
    relatedness: float = 0.0,
    correlation: float = 0.0,
    prevalence: float = 0.5,
    night: float = 0.2,
    occlusion: float = 0.2,
    clutter: float = 0.5,
    missing: float = 0.0,
    maps: bool = False,
) -> Table:
    """Draw road scenes with any combination of a stop sign, a pedestrian, a car and a traffic light.

    Each image is a road in perspective under a sky: red octagons with STOP on poles, people walking, cars from
    the side, traffic lights with one lamp lit. Nuisance: place, depth, size, daylight, weather, colours, the
    skyline, trees that hide up to half of an object, and decoys (round blue signs, street lamps) that stand
    where objects stand; all of it independent of the labels.

    Labels y_k have P(y_k = 1) = p and corr(y_j, y_k) = c for every pair: each copies one coin of the image with
    probability √c and is a coin of its own otherwise.

    *Relatedness* is how much colour the tasks share as evidence. Three objects have a free paint: clothes,
    coachwork, the light's housing. Each takes one of the stop sign's reds with probability ρ, and else a paint
    of its own task, none of which is red. At ρ = 1 a feature that finds red paint, learnt for one task, serves
    all four; at ρ = 0 no colour serves two. Outlines are the tasks' own at every ρ, and each object alone is as
    large and as well lit whatever ρ is.

    What that does, at 32x32 pixels: a convolutional network (5x5, 5x5 and 3x3 filters, then the maximum and the
    mean over the image) pretrained for 500 steps of 64 on the other three tasks, then a logistic regression on
    its features from 50 labels, has a test AUROC of 0.64 and 0.80 on ``stop_sign`` at ρ = 0, 0.90 and 0.85 at
    0.5, 0.97 and 0.92 at 1 (data seeds 0 and 1; the same network untrained: 0.59 to 0.76), and of 0.57 and 0.53,
    0.53 and 0.67, 0.95 and 0.86 on ``car`` (untrained: 0.57 to 0.83). On ``pedestrian`` ρ = 1 gains 0.02 to
    0.09, on ``traffic_light`` the untrained features stay better at every ρ. A perceptron on pixels
    does worse than its untrained features at ρ = 0 and 1: it cannot find a colour wherever it is. (A test of
    this module, marked slow, measures it for ``stop_sign``.)

    An image takes about 0.2 ms of one core to draw at 64x64 pixels.

    Image i depends on the seed, the options and i alone: a table of more examples begins with the same images,
    and each draw has a stream of its own, so that changing one option moves nothing else.

    Args:
      examples: N.
      size: pixels on a side, at least 16.
      seed: of the data set.
      difficulty: in [0, 1]; objects are 1 − 0.5 · difficulty as large, up to 0.7 · difficulty of their colour is
        haze, and the noise of a pixel grows from 0.01 to up to 0.07.
      relatedness: ρ in [0, 1].
      correlation: c in [0, 1].
      prevalence: p in (0, 1).
      night: share of dark images.
      occlusion: share of images with a tree in front of the place of one of the objects.
      clutter: in [0, 1], how much stands along the horizon, and the probability of each decoy.
      missing: share of labels missing, at random, independently; nested: those missing at 0.5 are missing
        at 0.9. They are gone from tests too: ``mtl.data.corrupt.missing`` hides labels and keeps the truth.
      maps: whether there are two more tasks, of each pixel: ``scene`` (a segmentation into the road, the four objects
        and the rest) and ``disparity`` (1 / distance; none in the sky), see ``mtl.data.sets.road_maps``.

    Returns:
      A table of N images [N, size, size, 3] in [0, 1], multiples of 1/255.

    Raises:
      ValueError: for an option out of its range.

    Source: drawn for this package; difficulty, relatedness and correlation are the usual knobs of generated
    multi-task data (see ``mtl.data.sets.latent``).

    >>> table = road_scenes_table(examples=8, size=32)
    >>> table.x.shape, [task.name for task in table.tasks]
    ((8, 32, 32, 3), ['stop_sign', 'pedestrian', 'car', 'traffic_light'])
    """
    check_options(
        *(examples, size, seed, difficulty, relatedness, correlation, prevalence, night, occlusion, clutter, missing)
    )
    x = np.empty((examples, size, size, 3), np.float32)
    tasks = [Task(name, "binary") for name in TASKS] + (map_tasks(size) if maps else [])
    known: dict[str, list[Array]] = {task.name: [] for task in tasks}
    for start in range(0, examples, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, examples))
        drawn, labels = draw_scenes(
            *(rows, size, seed, difficulty, relatedness, correlation, prevalence, night, occlusion, clutter, missing),
            maps=maps,
        )
        unit(drawn, x[start : start + len(rows)])
        for name, values in labels.items():
            known[name].append(values)
    about = (
        f"Drawn: road scenes of {size}x{size} pixels, data seed {seed}, difficulty {difficulty}, relatedness "
        f"{relatedness}, correlation {correlation}, prevalence {prevalence}, night {night}, occlusion {occlusion}, "
        f"clutter {clutter}. No licence needed."
    )
    whole = {name: np.concatenate(parts) for name, parts in known.items()}
    return make_table("road_scenes", x, tasks, whole, about, classes={"scene": CLASSES} if maps else {})


def check_options(
    examples: int,
    size: int,
    seed: int,
    difficulty: float,
    relatedness: float,
    correlation: float,
    prevalence: float,
    night: float,
    occlusion: float,
    clutter: float,
    missing: float,
) -> None:
    """Refuse what ``road_scenes_table`` cannot draw.

    Raises:
      ValueError: for the first option out of its range.
    """
    for field, value, low, high in (
        ("examples", examples, 1, 10**7),
        ("size", size, 16, 1024),
        ("seed", seed, 0, 2**63),
        ("difficulty", difficulty, 0, 1),
        ("relatedness", relatedness, 0, 1),
        ("correlation", correlation, 0, 1),
        ("night", night, 0, 1),
        ("occlusion", occlusion, 0, 1),
        ("clutter", clutter, 0, 1),
    ):
        if not low <= value <= high:
            raise ValueError(f'data "road_scenes": {field} = {value}: must be from {low} to {high}')
    if not 0.0 < prevalence < 1.0 or not 0.0 <= missing < 1.0:
        raise ValueError(
            f'data "road_scenes": prevalence = {prevalence}, missing = {missing}: must be in (0, 1) and [0, 1)'
        )


def draw_scenes(
    rows: Array,
    size: int,
    seed: int,
    difficulty: float,
    relatedness: float,
    correlation: float,
    prevalence: float,
    night: float,
    occlusion: float,
    clutter: float,
    missing: float,
    maps: bool = False,
) -> tuple[Array, dict[str, Array]]:
    """Draw some of a table's images: the same whichever others are drawn with them.

    Args:
      rows: their numbers, [B].
      size, seed, difficulty, relatedness, correlation, prevalence, night, occlusion, clutter, missing, maps: as in
        ``road_scenes_table``.

    Returns:
      ([B, size, size, 3] uint8, ``{task: [B]}`` labels, NaN where missing; of maps [B, size, size], −1 where a class
      is missing).
    """
    draw = Counter(seed, rows)
    labels = presence(draw, prevalence, correlation)
    known = {
        name: np.where(draw.chance(f"{name} missing", missing), np.nan, values.astype(float))
        for name, values in labels.items()
    }
    seen = Maps(view(draw, night), size) if maps else None
    images = render(draw, labels, size, difficulty, relatedness, night, occlusion, clutter, seen)
    if seen:
        gone = {name: draw.chance(f"{name} missing", missing)[:, None, None] for name in ("scene", "disparity")}
        known["scene"] = np.where(gone["scene"], np.int8(-1), seen.classes)
        known["disparity"] = np.where(gone["disparity"], np.float32(np.nan), seen.disparity)
    return images, known


def presence(draw: Counter, prevalence: float, correlation: float) -> dict[str, Array]:
    """Return ``{task: [B] booleans}``: what is in each image.

    Args:
      draw: the images' random numbers.
      prevalence: probability of each object.
      correlation: of each pair of labels.
    """
    shared = draw.chance("everything", prevalence)
    return {
        name: np.where(
            draw.chance(f"{name} copies", math.sqrt(correlation)), shared, draw.chance(f"{name} there", prevalence)
        )
        for name in TASKS
    }


def render(
    draw: Counter,
    present: Mapping[str, Array],
    size: int,
    difficulty: float,
    relatedness: float,
    night: float,
    occlusion: float,
    clutter: float,
    maps: Maps | None = None,
) -> Array:
    """Draw B images.

    Args:
      draw: the images' random numbers.
      present: ``{task: [B] booleans}``, what is in each.
      size, difficulty, relatedness, night, occlusion, clutter: as in ``road_scenes_table``.
      maps: of the same images, to be filled in.

    Returns:
      [B, size, size, 3] uint8.
    """
    scene = view(draw, night)
    places = _places(draw, scene, size, difficulty)
    there = {**present, **{name: draw.chance(f"{name} there", 0.6 * clutter) for name in ("round_sign", "lamp_post")}}
    places["tree"], there["tree"] = _tree(draw, places, occlusion)
    shrink = 1.0 - 0.5 * difficulty
    largest = {name: length * size * shrink * _LARGEST for name, length in _SIZES.items()}
    largest["tree"] = max(largest[name] * height for name, (_, height) in _HIDING.items())

    margin = size // 2
    canvas = np.zeros((len(scene.horizon), 3, size + 2 * margin, size + 2 * margin), np.float32)
    inner = canvas[:, :, margin : margin + size, margin : margin + size]
    inner[...] = background(draw, scene, size, clutter)
    fog = difficulty * draw("fog", 0.1, 0.7)
    colours = Colours(draw, scene.haze, fog, scene.light, relatedness)
    for name in _ORDER:
        rows = np.flatnonzero(there[name])
        if len(rows):
            x, y, scale = (values[rows] for values in places[name])
            patch = Patch(x, y, scale, EXTENTS[name], largest[name])
            DRAW[name](patch, draw.only(rows), colours.only(rows))
            patch.paste(canvas, rows, margin)
            if maps:
                maps.put(name, patch, rows, y)

    # Night is bluish; grain comes last, as in a camera.
    tint = scene.light[:, None] * (1.0 + (1.0 - scene.light[:, None]) * np.array([-0.15, -0.05, 0.25]))
    image = inner * (tint * 255).astype(np.float32)[:, :, None, None]
    tile = _grain(size)
    windows = np.lib.stride_tricks.sliding_window_view(tile, (size, size))
    grain = windows[draw.integers("grain row", 64), draw.integers("grain column", 64)]
    gain = (255 * (0.01 + 0.06 * difficulty * draw("grain"))).astype(np.float32)
    image += (grain * gain[:, None, None] + np.float32(0.5))[:, None]
    np.minimum(np.maximum(image, 0, out=image), np.float32(255), out=image)
    return np.ascontiguousarray(image.astype(np.uint8).transpose(0, 2, 3, 1))


def _places(draw: Counter, scene: View, size: int, difficulty: float) -> dict[str, tuple[Array, Array, Array]]:
    """Return ``{thing: (x, y of its foot, its unit)}``, in pixels, whether it is there or not."""
    side = np.where(draw.chance("side", 0.5), 1.0, -1.0)
    walks = np.where(draw.chance("walks left", 0.5), 1.0, -1.0)
    crosses = draw.chance("crosses", 0.4)
    depths = {
        "stop_sign": draw("stop_sign depth", 0.32, 0.60),
        "traffic_light": draw("traffic_light depth", 0.30, 0.55),
        "car": draw("car depth", 0.42, 0.72),
        "pedestrian": draw("pedestrian depth", 0.50, 0.88),
        "round_sign": draw("round_sign depth", 0.25, 0.45),
        "lamp_post": draw("lamp_post depth", 0.20, 0.45),
    }
    across = {  # from the middle of the road, in halves of it
        "stop_sign": side * draw("stop_sign across", 1.35, 1.9),
        "traffic_light": -side * draw("traffic_light across", 1.3, 1.9),
        "car": draw("car across", -0.5, 0.5),
        "pedestrian": np.where(crosses, draw("crossing", -0.8, 0.8), walks * draw("pedestrian across", 1.1, 1.5)),
        "round_sign": -side * draw("round_sign across", 1.2, 2.4),
        "lamp_post": side * draw("lamp_post across", 1.1, 2.4),
    }
    places = {}
    for name, depth in depths.items():
        grown = (0.80 + 0.5 * depth) * draw(f"{name} size", 0.88, 1.04)  # at most _LARGEST
        unit = _SIZES[name] * (1.0 - 0.5 * difficulty) * grown
        left, right, _, high = EXTENTS[name]
        x = scene.middle(depth) + across[name] * scene.half * depth
        x = np.minimum(np.maximum(x, 0.02 - left * unit), 0.98 - right * unit)  # wholly in the picture
        foot = np.maximum(scene.foot(depth), 0.02 + high * unit)
        places[name] = (x * size, foot * size, unit * size)
    return places


def _tree(
    draw: Counter, places: Mapping[str, tuple[Array, Array, Array]], occlusion: float
) -> tuple[tuple[Array, Array, Array], Array]:
    """Return where the tree stands, in front of one object's place, and whether it does."""
    which = draw.integers("hidden", len(TASKS))
    x, foot, unit = (np.choose(which, [places[name][i] for name in TASKS]) for i in range(3))
    beside, height = (np.choose(which, [np.full(len(x), _HIDING[name][i]) for name in TASKS]) for i in range(2))
    side = np.where(draw.chance("tree left", 0.5), 1.0, -1.0)
    place = (x + side * beside * unit * draw("tree beside", 0.9, 1.2), foot + 0.03 * unit, unit * height)
    return place, draw.chance("tree there", occlusion)


@functools.lru_cache(maxsize=4)
def _grain(size: int) -> Array:
    """Return a tile of noise of mean 0 and variance 1, from which each image cuts its own piece."""
    side = size + 64
    words = [mix(np.arange(side * side, dtype=np.uint64) + np.uint64(k << 40)) >> np.uint64(11) for k in range(1, 5)]
    total = sum((w * 2.0**-53 for w in words), start=np.zeros(side * side))
    tile = ((total - 2.0) * math.sqrt(3.0)).astype(np.float32).reshape(side, side)
    tile.setflags(write=False)
    return tile
