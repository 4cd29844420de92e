"""What is at each pixel of road scenes: a class and a disparity, filled in while the images are drawn."""

from __future__ import annotations

import numpy as np

from mtl.data.sets.drawing import Array, Patch, column
from mtl.data.sets.road_background import View
from mtl.tasks import Task

#: The classes of ``scene``: of a pixel, what is in front.
CLASSES = ("other", "road", "stop_sign", "pedestrian", "car", "traffic_light")


def map_tasks(size: int) -> list[Task]:
    """Return the tasks of each pixel, for images of that many pixels on a side."""
    shape = (size, size)
    return [
        Task("scene", "segmentation", num_classes=len(CLASSES), shape=shape),
        Task("disparity", "dense_regression", shape=shape),
    ]


class Maps:
    """Class and disparity of each pixel of B images.

    The disparity is 1 / distance, in units of that of the image's lower edge: on the ground it grows in proportion to
    how far a pixel is below the horizon; a thing has that of its foot. What is on or above the horizon has none.
    """

    def __init__(self, scene: View, size: int) -> None:
        """Begin with the ground and the road on it."""
        margin = size // 2  # So that patches that reach beyond the image need not be cut.
        self._size, self._margin, self._horizon = size, margin, scene.horizon
        at = ((np.arange(size) + 0.5) / size).astype(np.float32)
        across, down = at[None, None, :], at[None, :, None]
        depth = (down - column(scene.horizon)) / (1 - column(scene.horizon))  # [B, size, 1]
        offset = np.abs(across - column(scene.vanish) - depth * column(scene.bottom - scene.vanish))
        on_road = (depth > 0) & (offset < depth * column(scene.half))
        shape = (len(scene.horizon), size + 2 * margin, size + 2 * margin)
        self._classes, self._disparity = np.zeros(shape, np.int8), np.full(shape, np.nan, np.float32)
        self._cut(self._classes)[...] = np.where(on_road, np.int8(CLASSES.index("road")), np.int8(0))
        self._cut(self._disparity)[...] = np.where(depth > 0, depth, np.float32(np.nan))

    def put(self, name: str, patch: Patch, rows: Array, foot: Array) -> None:
        """Put a thing in front, where it covers more than half of a pixel.

        Args:
          name: what it is; decoys and trees are of the class ``other``.
          patch: as it is drawn.
          rows: [B], in which images.
          foot: [B], how far down it stands, in pixels.
        """
        what = CLASSES.index(name) if name in CLASSES else 0
        depth = np.maximum((foot / self._size - self._horizon[rows]) / (1 - self._horizon[rows]), 0)
        covered = patch.alpha > 0.5
        for canvas, value in ((self._classes, np.int8(what)), (self._disparity, column(depth))):
            windows, at = patch.windows(canvas, rows, self._margin)
            windows[at] = np.where(covered, value, windows[at])

    @property
    def classes(self) -> Array:
        """[B, size, size] int8, an index of ``CLASSES``."""
        return self._cut(self._classes)

    @property
    def disparity(self) -> Array:
        """[B, size, size] float32 in [0, 1], NaN where there is none."""
        return self._cut(self._disparity)

    def _cut(self, canvas: Array) -> Array:
        m = self._margin
        return canvas[:, m : m + self._size, m : m + self._size]
