"""Drawn road scenes as a data set of TFDS."""

from __future__ import annotations

import hashlib
import inspect
import io
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from mtl.data import counter
from mtl.data.extras import needs
from mtl.data.sets import drawing, road_background, road_objects, road_scenes
from mtl.data.sets.road_scenes import TASKS, check_options, draw_scenes, road_scenes_table
from mtl.data.tfds.recipe import Contents, Options, Recipe


def _open(options: Options, start: pathlib.Path) -> Contents:
    size = options["size"]
    quality, drawn = options["quality"], {k: v for k, v in _drawn(options).items() if k != "examples"}

    def features() -> dict[str, Any]:
        import tensorflow_datasets as tfds

        return {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg")
            if quality
            else tfds.features.Tensor(shape=(size, size, 3), dtype=np.uint8, encoding="bytes"),
            **{task: tfds.features.Scalar(dtype=np.float32) for task in TASKS},
        }

    def examples(begin: int, end: int) -> Iterator[dict[str, Any]]:
        images, labels = draw_scenes(np.arange(begin, end), **drawn)
        for i in range(end - begin):
            image = _jpeg(images[i], quality) if quality else images[i]
            yield {"image": image, **{task: np.float32(labels[task][i]) for task in TASKS}}

    return Contents(
        features=features,
        total=options["examples"],
        bytes_each=3 * size * size,
        examples=examples,
        description=f"Drawn road scenes: {dict(options)}. No licence needed.",
        citation="",
        digest=_digest(options),
    )


def _digest(options: Options) -> str:
    """Return what files depend on: the options and the code that draws."""
    digest = hashlib.sha256(repr(sorted(options.items())).encode())
    for module in (counter, drawing, road_background, road_objects, road_scenes):
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()[:16]


def _drawn(options: Options) -> dict[str, Any]:
    """Return the options of the drawing, without that of how images are kept."""
    return {k: v for k, v in options.items() if k != "quality"}


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(image).save(held, format="JPEG", quality=quality)
    return held.getvalue()


def _check(options: Options) -> None:
    if not 0 <= options["quality"] <= 95:
        raise ValueError(
            f'data "road_scenes": quality = {options["quality"]}: must be from 1 to 95 (0: no compression)'
        )
    if options["quality"]:
        needs("PIL", "images", "JPEG images")
    check_options(**_drawn(options))


# Images and their own labels: maps of pixels are drawn in memory only.
_OPTIONS = {k: p.default for k, p in inspect.signature(road_scenes_table).parameters.items() if k != "maps"}
_OPTIONS |= {"quality": 0}

ROAD_SCENES = Recipe(_OPTIONS, tuple(_OPTIONS), ("examples", "size", "seed", "quality"), _check, _open)
