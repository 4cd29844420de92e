"""A page of a table's first images with their labels: the quickest way to see what a task is."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np

from mtl.data.table import Table
from mtl.inputs import image_leaf


def contact_sheet(table: Table, path: str | pathlib.Path, images: int = 40, columns: int = 8, scale: int = 0) -> None:
    """Write a PNG of the first images of a table, each with the names of its positive tasks and its classes.

    A task whose label is missing is followed by "?".

    Args:
      table: whose inputs, or one leaf of them, are [N, height, width, channels] in [0, 1], of 1 or 3 channels.
      path: of the PNG.
      images: how many at most.
      columns: in a row.
      scale: screen pixels a pixel; 0 for about 128 an image.

    Raises:
      ValueError: for inputs that are no images.

    >>> import tempfile
    >>> from mtl.data.sets.road_scenes import road_scenes_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     contact_sheet(road_scenes_table(examples=4, size=16), f"{folder}/sheet.png")
    """
    from PIL import Image, ImageDraw

    x = pictures(table)
    if x is None:
        raise ValueError(f'data "{table.name}": inputs {table.shape}: must be images (height, width, 1 or 3)')
    shown = min(images, len(table))
    height, width = x.shape[1:3]
    scale = scale or max(1, round(128 / height))
    lines = 1 + max(len(_caption(table, row)) for row in range(shown))
    cell = (height * scale + 11 * lines + 6, width * scale + 6)
    sheet = Image.new("RGB", (cell[1] * min(columns, shown), cell[0] * math.ceil(shown / columns)), "white")
    pen = ImageDraw.Draw(sheet)
    for row in range(shown):
        top, left = row // columns * cell[0] + 3, row % columns * cell[1] + 3
        pixels = np.rint(np.clip(x[row], 0, 1) * 255).astype(np.uint8)
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        picture = Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        sheet.paste(picture, (left, top))
        for i, line in enumerate(_caption(table, row)):
            pen.text((left, top + height * scale + 1 + 11 * i), line, fill="black")
    sheet.save(path, format="PNG")


def pictures(table: Table) -> Any:
    """Return the inputs that a contact sheet can show, [N, height, width, 1 or 3]; None if there are none."""
    x = image_leaf(table.x)
    return None if x is None or x.shape[3] not in (1, 3) else x


def _caption(table: Table, row: int) -> list[str]:
    said = []
    for task in table.tasks:
        label, names = table.labels[task.name][row], table.classes.get(task.name)
        if not table.mask[task.name][row]:
            said.append(f"{task.name}?")
        elif task.shape:
            said.append(f"{task.name}: a map")
        elif task.labels == "binary":
            said += [task.name] if label else []
        else:
            value = names[int(label)] if names else f"{label:.3g}" if task.labels == "numbers" else str(label)
            said.append(f"{task.name}: {value}")
    return said or ["(none)"]
