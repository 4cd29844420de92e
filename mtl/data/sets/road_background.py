"""The road without its objects: sky, skyline, verges, the road in perspective with its marks; day and night."""

from __future__ import annotations

import dataclasses

import numpy as np

from mtl.data.counter import Counter
from mtl.data.sets.drawing import Array, blend, column


@dataclasses.dataclass(frozen=True)
class View:
    """Where the road lies in each of B images; lengths in image heights, from the upper left.

    Args:
      horizon: [B], how far down the horizon is.
      vanish: [B], where the middle of the road meets it.
      bottom: [B], where the middle of the road leaves the image.
      half: [B], half of the road's width at the bottom.
      light: [B], 1 for a bright day down to about 0.36 for night.
      haze: [B, 3], colour of the air at the horizon, in daylight.
    """

    horizon: Array
    vanish: Array
    bottom: Array
    half: Array
    light: Array
    haze: Array

    def foot(self, depth: Array) -> Array:
        """Return how far down the ground lies at a depth: 0 at the horizon, 1 at the bottom."""
        return self.horizon + depth * (1.0 - self.horizon)

    def middle(self, depth: Array) -> Array:
        """Return where the middle of the road is at a depth."""
        return self.vanish + depth * (self.bottom - self.vanish)


def view(draw: Counter, night: float) -> View:
    """Draw where the road lies and how light it is; ``night`` is the share of dark images."""
    dark = draw.chance("night", night)
    light = np.where(dark, draw("light", 0.36, 0.52), draw("light", 0.72, 1.0))
    grey = overcast(draw)
    blue, white = np.array([0.72, 0.84, 0.95]), np.array([0.82, 0.84, 0.86])
    return View(
        horizon=draw("horizon", 0.40, 0.52),
        vanish=draw("vanish", 0.38, 0.62),
        bottom=draw("bottom", 0.36, 0.64),
        half=draw("half", 0.40, 0.52),
        light=light,
        haze=blue * (1 - grey) + white * grey,
    )


def overcast(draw: Counter) -> Array:
    """Return [B, 1], how grey the sky is."""
    return draw("overcast")[:, None]


def background(draw: Counter, scene: View, size: int, clutter: float) -> Array:
    """Return B images [B, 3, size, size] float32, in daylight.

    Args:
      draw: the images' random numbers.
      scene: where the road lies.
      size: pixels on a side.
      clutter: from 0 to 1, how much stands along the horizon.
    """
    count = len(scene.horizon)
    across = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x, y = across[None, None, :], across[None, :, None]
    horizon, pixel = column(scene.horizon), np.float32(size)

    # The sky is bluer the higher, the verge greener the nearer: one colour a row.
    up = np.maximum((horizon - y) / horizon, 0)[:, None]
    grey = overcast(draw)
    zenith = np.array([0.34, 0.58, 0.92]) * (1 - 0.8 * grey) + np.array([0.64, 0.68, 0.74]) * 0.8 * grey
    haze = scene.haze.astype(np.float32)[:, :, None, None]
    sky = haze + up * (zenith.astype(np.float32)[:, :, None, None] - haze)
    near = np.maximum((y - horizon) / (1 - horizon), 0)
    verges = np.array([[0.36, 0.55, 0.25], [0.45, 0.52, 0.28], [0.62, 0.56, 0.42], [0.42, 0.60, 0.32]])
    verge = (draw.pick("verge", verges) * draw("verge tone", 0.85, 1.1)[:, None]).astype(np.float32)[:, :, None, None]
    ground = verge * (np.float32(0.85) + np.float32(0.25) * near[:, None])
    below = np.minimum(np.maximum((y - horizon) * pixel + np.float32(0.5), 0), 1)[:, None]
    rows = sky + below * (ground - sky)  # [B, 3, size, 1]
    image = np.broadcast_to(rows, (count, 3, size, size)).copy()

    _clouds(image, draw, scene, x, y)
    _skyline(image, draw, scene, x, y, clutter)
    _road(image, draw, scene, x, y, near, size)
    return image


def _clouds(image: Array, draw: Counter, scene: View, x: Array, y: Array) -> None:
    top = slice(0, int(0.4 * image.shape[3]))
    high = y[:, top]
    for name in ("cloud a", "cloud b"):
        u = (x - column(draw(f"{name} x", -0.1, 1.1))) / column(draw(f"{name} width", 0.12, 0.3))
        v = (high - column(draw(f"{name} y", 0.04, 0.26))) / column(draw(f"{name} height", 0.03, 0.07))
        cover = np.minimum(np.maximum((1 - u * u - v * v) * np.float32(2), 0), 1) * np.float32(0.75)
        blend(image[:, :, top], cover, np.array([0.97, 0.97, 0.98]))


def _skyline(image: Array, draw: Counter, scene: View, x: Array, y: Array, clutter: float) -> None:
    """Houses (blocks with windows) and round trees along the horizon, one a stretch of it."""
    size = image.shape[3]
    rows = slice(int(0.1 * size), min(int(0.53 * size) + 1, size))
    y = y[:, rows]
    count = len(image)
    stretch = (x[:, 0] * 7 + draw("stretch")[:, None]).astype(np.float32)  # [B, size], the number of the stretch
    number = stretch.astype(np.int64)
    inside = stretch - number
    names = range(9)
    kind = np.stack([draw(f"house or tree {i}") for i in names], 1)
    tall = np.stack([draw(f"tall {i}", 0.05, 0.26) for i in names], 1)
    tone = np.stack([draw(f"tone {i}", 0.45, 0.85) for i in names], 1)
    index = np.arange(count)[:, None], number
    above = column(scene.horizon) - y  # how far above the horizon
    house = kind[index] < 0.45 * clutter + 0.05
    tree = ~house & (kind[index] < 0.35 + 0.6 * clutter)
    roof = np.where(house & (inside > 0.06) & (inside < 0.94), tall[index], -1.0).astype(np.float32)[:, None, :]
    cover = np.minimum(np.maximum((roof - above) * size + np.float32(0.5), 0), 1) * (above > 0)
    grey = tone[index].astype(np.float32)[:, None, None, :]
    brick = np.array([0.80, 0.74, 0.68], np.float32).reshape(3, 1, 1)
    pane_x = (inside[:, None, :] * 4) % 1
    pane_y = (above * np.float32(18)) % 1
    pane = (pane_x > np.float32(0.35)) & (pane_x < np.float32(0.75)) & (pane_y > np.float32(0.4))
    shade = np.where(pane, np.float32(0.55), np.float32(1))[:, None]
    part = image[:, :, rows]
    blend(part, cover, grey * brick * shade)
    u = (inside - np.float32(0.5)) * 2
    crown = (tall[index] * 0.75).astype(np.float32) * np.maximum(1 - u * u, 0)
    crown = np.where(tree, crown, -1)[:, None, :]
    cover = np.minimum(np.maximum((crown - above) * size + np.float32(0.5), 0), 1) * (above > 0)
    blend(part, cover, grey * np.array([0.30, 0.62, 0.28], np.float32).reshape(3, 1, 1))


def _road(image: Array, draw: Counter, scene: View, x: Array, y: Array, near: Array, size: int) -> None:
    """The road, its kerbs, its white edges and its broken middle line, narrowing to the vanishing point."""
    rows = slice(int(0.4 * size), size)
    depth, y, image = near[:, rows], y[:, rows], image[:, :, rows]
    offset = np.abs(x - column(scene.vanish) - depth * column(scene.bottom - scene.vanish))
    half = depth * column(scene.half)
    pixel = np.float32(size)
    ground = (depth > 0).astype(np.float32)

    def strip(distance: Array) -> Array:
        return np.minimum(np.maximum(np.float32(0.5) - distance * pixel, 0), 1) * ground

    tone = draw("asphalt", 0.30, 0.46)[:, None]
    blend(image, strip(offset - half * np.float32(1.12)), tone * np.array([1.55, 1.52, 1.46]))
    blend(image, strip(offset - half), tone * np.array([1.0, 1.0, 1.04]))
    white = np.array([0.93, 0.93, 0.90])
    line = half * np.float32(0.028)
    blend(image, strip(np.abs(offset - half * np.float32(0.90)) - line), white)
    # Dashes are of equal length on the ground, so that their number grows as 1 / depth.
    phase = (np.float32(1.6) / np.maximum(depth, np.float32(0.06)) + column(draw("dash"))) % 1
    dashed = strip(offset - line * np.float32(1.2)) * (phase < np.float32(0.55))
    yellow = draw.chance("yellow line", 0.3)[:, None]
    blend(image, dashed, np.where(yellow, np.array([0.95, 0.80, 0.25]), white))
