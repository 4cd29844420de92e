"""What stands on and beside the road: stop sign, pedestrian, car, traffic light; and what only looks a little like it.

Every object is drawn in its own units: its height is 1 (a car's length is 1), its foot at (0, 0), v upwards.
"""

from __future__ import annotations

import numpy as np

from mtl.data.counter import Counter
from mtl.data.sets.drawing import Array, Patch, box, column, disc, limb, octagon

#: Paints of the stop sign's family.
REDS = np.array([[0.80, 0.08, 0.10], [0.72, 0.06, 0.09], [0.86, 0.14, 0.12]])

#: Each task's own paints: clothes, coachwork, housings. None is red.
CLOTHES = np.array([[0.20, 0.30, 0.75], [0.15, 0.45, 0.80], [0.35, 0.25, 0.65], [0.10, 0.20, 0.45]])
COACHWORK = np.array([[0.10, 0.55, 0.40], [0.85, 0.86, 0.88], [0.15, 0.40, 0.30], [0.55, 0.70, 0.60]])
HOUSINGS = np.array([[0.10, 0.10, 0.09], [0.85, 0.68, 0.10], [0.16, 0.15, 0.10]])
SKINS = np.array([[0.95, 0.78, 0.65], [0.78, 0.57, 0.42], [0.52, 0.35, 0.24], [0.36, 0.24, 0.17]])
TROUSERS = np.array([[0.22, 0.23, 0.30], [0.38, 0.35, 0.31], [0.52, 0.47, 0.38], [0.18, 0.22, 0.38]])

_STEEL = np.array([0.55, 0.56, 0.58])
_WHITE = np.array([0.96, 0.96, 0.95])
_TYRE = np.array([0.07, 0.07, 0.08])
_GLASS = np.array([0.62, 0.78, 0.88])

# STOP in 15 x 5 cells.
_LETTERS = ("### ### ### ###", "#    #  # # # #", "###  #  # # ###", "  #  #  # # #  ", "###  #  ### #  ")
_TEXT = np.array([[c == "#" for c in row] for row in _LETTERS], np.float32)

Box = tuple[float, float, float, float]

#: (left, right, low, high) of each object in its units.
EXTENTS: dict[str, Box] = {
    "stop_sign": (-0.25, 0.25, 0.0, 1.0),
    "pedestrian": (-0.28, 0.28, 0.0, 1.0),
    "car": (-0.52, 0.52, -0.02, 0.46),
    "traffic_light": (-0.16, 0.16, 0.0, 1.0),
    "round_sign": (-0.18, 0.18, 0.0, 1.0),
    "lamp_post": (-0.08, 0.36, 0.0, 1.0),
    "tree": (-0.32, 0.32, 0.0, 1.0),
}


def stop_sign(patch: Patch, draw: Counter, colours: Colours) -> None:
    """A red octagon with a white border and STOP on it, on a steel pole."""
    u, v = patch.u, patch.v
    patch.add(box(u, v, -0.02, 0.02, 0.0, 0.6), colours(_STEEL * 0.9))
    patch.add(octagon(u, v, 0.0, 0.76, 0.24), colours(_WHITE))
    patch.add(octagon(u, v, 0.0, 0.76, 0.205), colours(draw.pick("stop red", REDS)))
    # The cell of each pixel; letters whose strokes are under half a pixel fade into a pale bar.
    readable = np.minimum(np.maximum(patch.pixels * np.float32(0.33 / 15 * 3) - 1, 0), 1)
    across = ((u + 0.165) * np.float32(15 / 0.33)).astype(np.int64)
    down = ((0.825 - v) * np.float32(5 / 0.13)).astype(np.int64)
    inside = (np.abs(u) < 0.165) & (v < 0.825) & (v > 0.695)
    cells = _TEXT[np.clip(down, 0, 4), np.clip(across, 0, 14)]
    strength = 0.3 + readable * (0.6 * cells - 0.05)
    patch.layer(np.where(inside, strength, 0), colours(_WHITE))


def pedestrian(patch: Patch, draw: Counter, colours: Colours) -> None:
    """A person who walks: head with hair, jacket, two arms, two legs, shoes."""
    u, v = patch.u, patch.v
    step = column(draw("step", 0.05, 0.13))
    swing = column(draw("swing", 0.06, 0.15))
    skin = colours(draw.pick("skin", SKINS))
    coat = colours.paint("pedestrian", CLOTHES)
    legs = draw.pick("trousers", TROUSERS)
    for side, shade in ((1.0, 0.8), (-1.0, 1.0)):
        foot = step * side
        patch.add(limb(u, v, 0.0, 0.47, foot, 0.05, 0.052), colours(legs * shade))
        patch.add(box(u, v, foot - 0.05, foot + 0.075, 0.0, 0.045), colours(_TYRE))
    hand = -swing
    patch.add(limb(u, v, 0.0, 0.74, hand, 0.50, 0.038), coat * 0.75)
    patch.add(box(u, v, -0.105, 0.105, 0.50, 0.74), coat)
    patch.add(limb(u, v, -0.05, 0.76, 0.05, 0.76, 0.058), coat)
    patch.add(limb(u, v, 0.02, 0.74, -hand, 0.50, 0.038), coat * 0.85)
    patch.add(disc(u, v, -hand, 0.475, 0.035), skin)
    patch.add(disc(u, v, 0.0, 0.90, 0.088), skin)
    hair = disc(u, v, 0.0, 0.915, 0.088)
    patch.add(np.maximum(hair, 0.93 - v), colours(draw.pick("hair", TROUSERS) * 0.8))


def car(patch: Patch, draw: Counter, colours: Colours) -> None:
    """A car from the side: body, cabin with two windows, two wheels, lamps at both ends."""
    u, v = patch.u, patch.v
    u = np.where(draw.chance("car faces left", 0.5)[:, None, None], u, -u)
    paint = colours.paint("car", COACHWORK)
    patch.add(box(u, v, -0.44, 0.44, -0.015, 0.025), colours(np.array([0.1, 0.1, 0.1])), 0.5)  # its shadow
    slope = 0.55 * (v - 0.24)
    cabin = np.maximum(np.abs(u - 0.02) - 0.33 + slope, box(u, v, -0.5, 0.5, 0.2, 0.42))
    patch.add(cabin, paint * 0.88)
    glass = np.maximum(np.abs(u - 0.02) - 0.285 + slope, box(u, v, -0.5, 0.5, 0.255, 0.385))
    patch.add(glass, colours(_GLASS))
    patch.add(box(u, v, 0.0, 0.035, 0.25, 0.4), paint * 0.88)
    patch.add(np.maximum(box(u, v, -0.5, 0.5, 0.075, 0.25), (np.abs(u) + v - 0.68) * 0.7), paint)
    patch.add(box(u, v, -0.5, 0.5, 0.075, 0.105), paint * 0.6)
    patch.add(box(u, v, 0.0, 0.012, 0.1, 0.24), paint * 0.7)
    patch.add(box(u, v, -0.5, -0.455, 0.165, 0.215), colours.lit(np.array([1.0, 0.95, 0.7]), 0.7))
    patch.add(box(u, v, 0.46, 0.5, 0.165, 0.215), colours(np.array([0.75, 0.35, 0.05])))
    for wheel in (-0.29, 0.29):
        patch.add(disc(u, v, wheel, 0.09, 0.098), colours(_TYRE))
        patch.add(disc(u, v, wheel, 0.09, 0.046), colours(_STEEL * 1.3))


def traffic_light(patch: Patch, draw: Counter, colours: Colours) -> None:
    """A housing with three lamps, one of them lit: red above, amber, green below; on a pole."""
    u, v = patch.u, patch.v
    patch.add(box(u, v, -0.024, 0.024, 0.0, 0.5), colours(_STEEL * 0.6))
    patch.add(box(u, v, -0.125, 0.125, 0.46, 1.0), colours(_STEEL * 0.35))
    patch.add(box(u, v, -0.11, 0.11, 0.475, 0.985), colours.paint("traffic_light", HOUSINGS))
    shown = draw.integers("lit lamp", 3)
    lamps = np.array([[1.0, 0.16, 0.10], [1.0, 0.75, 0.10], [0.15, 0.95, 0.40]])
    for lamp in range(3):
        lit = (shown == lamp)[:, None]
        colour = np.where(lit, colours.lit(lamps[lamp], 1.0), colours(lamps[lamp] * 0.22 + 0.02))
        v0 = 0.73 + 0.165 * (1 - lamp)
        patch.add(disc(u, v, 0.0, v0, 0.083), colours(np.array([0.05, 0.05, 0.05])))
        patch.add(disc(u, v, 0.0, v0, 0.072), colour)


def round_sign(patch: Patch, draw: Counter, colours: Colours) -> None:
    """A decoy: a round blue sign with a white border, on a pole like a stop sign's."""
    u, v = patch.u, patch.v
    patch.add(box(u, v, -0.02, 0.02, 0.0, 0.7), colours(_STEEL * 0.9))
    patch.add(disc(u, v, 0.0, 0.82, 0.165), colours(_WHITE))
    patch.add(disc(u, v, 0.0, 0.82, 0.14), colours(np.array([0.10, 0.28, 0.70])))


def lamp_post(patch: Patch, draw: Counter, colours: Colours) -> None:
    """A decoy: a street lamp on a pole like a traffic light's."""
    u, v = patch.u, patch.v
    patch.add(box(u, v, -0.018, 0.018, 0.0, 0.98), colours(_STEEL * 0.6))
    patch.add(box(u, v, 0.0, 0.24, 0.955, 0.985), colours(_STEEL * 0.6))
    patch.add(box(u, v, 0.16, 0.32, 0.93, 0.975), colours(_STEEL * 0.8))


def tree(patch: Patch, draw: Counter, colours: Colours) -> None:
    """A young tree: what hides part of an object."""
    u, v = patch.u, patch.v
    patch.add(box(u, v, -0.03, 0.03, 0.0, 0.6), colours(np.array([0.36, 0.26, 0.18])))
    green = draw("leaf tone", 0.75, 1.15)[:, None] * np.array([0.22, 0.45, 0.18])
    crown = np.minimum(disc(u, v, -0.11, 0.66, 0.19), disc(u, v, 0.12, 0.64, 0.18))
    patch.add(np.minimum(crown, disc(u, v, 0.02, 0.80, 0.19)), colours(green))
    patch.add(np.minimum(disc(u, v, -0.08, 0.72, 0.09), disc(u, v, 0.08, 0.82, 0.08)), colours(green * 1.3))


DRAW = {
    "stop_sign": stop_sign,
    "pedestrian": pedestrian,
    "car": car,
    "traffic_light": traffic_light,
    "round_sign": round_sign,
    "lamp_post": lamp_post,
    "tree": tree,
}


class Colours:
    """Colours as the air and the light leave them.

    Args:
      draw: the images' random numbers.
      haze: [B, 3], colour of the air.
      fog: [B], share of the air's colour in an object's.
      light: [B], what the whole image will be multiplied by.
      relatedness: probability that a free paint is one of the stop sign's reds.
    """

    def __init__(self, draw: Counter, haze: Array, fog: Array, light: Array, relatedness: float) -> None:
        """Keep what every colour needs."""
        self._draw, self._haze, self._fog = draw, haze, fog[:, None]
        self._light, self._relatedness = light[:, None], relatedness

    def only(self, rows: Array) -> Colours:
        """Return the colours in some of the images."""
        part = object.__new__(Colours)
        part._draw, part._haze, part._fog = self._draw.only(rows), self._haze[rows], self._fog[rows]
        part._light, part._relatedness = self._light[rows], self._relatedness
        return part

    def __call__(self, colour: Array) -> Array:
        """Return a colour, [3] or [B, 3], seen through the air: [B, 3] float32."""
        return (colour * (1 - self._fog) + self._haze * self._fog).astype(np.float32)

    def lit(self, colour: Array, strength: float) -> Array:
        """Return the colour of a lamp, which shines as brightly at night."""
        dark = 1 - strength + strength / self._light
        return (self(colour) * dark).astype(np.float32)

    def paint(self, name: str, own: Array) -> Array:
        """Return an object's free paint: red with probability ``relatedness``, else one of the task's own."""
        shared = self._draw.chance(f"{name} shares", self._relatedness)[:, None]
        return self(np.where(shared, self._draw.pick(f"{name} red", REDS), self._draw.pick(f"{name} own", own)))
