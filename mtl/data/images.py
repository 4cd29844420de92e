"""A folder of images and a CSV file of their labels."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import struct
import warnings
import zlib
from collections.abc import Sequence

import numpy as np

from mtl.data.cells import Markers, Missing
from mtl.data.columns import Labels, Roles, build, choose
from mtl.data.csv_file import read_columns
from mtl.data.extras import needs
from mtl.data.labels import ClassNames
from mtl.data.paths import MAX_BYTES, read, resolve, text_of
from mtl.data.problems import DataError, Problems
from mtl.data.table import Table

# Formats whose decoders are part of Pillow; EPS, for one, would start another program.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")


def images_table(
    path: str,
    labels: Labels,
    size: Sequence[int],
    folder: str = "",
    file_column: str = "file",
    channels: int = 3,
    ignore: Sequence[str] | str = (),
    groups: str = "",
    missing: Markers | str = (),
    classes: ClassNames = (),
    bad_images: str = "error",
    directory: str = "",
    sha256: str = "",
    name: str = "",
    about: str = "",
    max_bytes: int = MAX_BYTES,
    max_pixels: int = 50_000_000,
) -> Table:
    """Return the table of images whose file names and labels stand in a CSV file.

    Images are scaled to ``size`` (bilinear, without keeping the aspect) with values in [0, 1].

    Args:
      path: of the CSV file, inside the data directory; its other columns are labels or ignored.
      labels: as in ``csv_table``.
      size: (height, width).
      folder: that the images' paths start from and must stay in; the CSV file's if empty.
      file_column: the column of their paths.
      channels: 3 for colour, 1 for grey.
      ignore: columns that are neither; columns that are not named are ignored too.
      groups, missing, classes, directory, sha256, name, about: as in ``csv_table``.
      bad_images: what to do with an image that is absent or does not decode: ``error``, or ``skip`` it; how
        many were skipped is said in ``about`` and in a warning.
      max_bytes: the most the table of images may hold, and any file.
      max_pixels: the most pixels an image may have before it is scaled.

    Returns:
      The table; inputs [N, height, width, channels].

    Raises:
      DataError: for everything that is wrong, one sentence each with file, line and column.
    """
    needs("PIL", "images", "Images")
    full = resolve(path, directory)
    where = f'file "{full.name}"'
    if len(size) != 2 or min(size) < 1:
        raise DataError(f"size = {tuple(size)}: must be (height, width), at least 1 each")
    if channels not in (1, 3):
        raise DataError(f"channels = {channels}: must be 1 or 3")
    if bad_images not in ("error", "skip"):
        raise DataError(f'bad_images = "{bad_images}": must be "error" or "skip"')
    problems = Problems()
    columns = read_columns(
        text_of(read(full, sha256, max_bytes), full.name),
        where,
        lambda names: _roles(choose(names, labels, file_column, ignore, groups)),
        problems,
        Missing(missing),
    )
    (file_column,) = columns.roles.texts
    files = columns.cells[file_column]
    shape = (len(files), *size, channels)
    if 4 * int(np.prod(shape, dtype=object)) > max_bytes:
        raise DataError(f"{where}: images {shape} in float32: must be at most max_bytes = {max_bytes:,}")
    root = str(resolve(folder, directory) if folder else full.parent)
    x, kept, skipped = np.zeros(shape, np.float32), np.ones(len(files), dtype=bool), []
    for row, file in enumerate(files):
        try:
            x[row] = _decode(resolve(str(file).strip(), root), tuple(size), channels, max_bytes, max_pixels)
        except DataError as error:
            kept[row] = False
            if bad_images == "error" or "leaves the data directory" in str(error):
                problems.add(f'{columns.at(row)}, column "{file_column}": {error}')
            else:
                skipped.append(f"{columns.at(row)}: {error}")
    if not kept.any() and not problems.count:
        problems.add(f"none of {len(files)} images could be read; the first: {skipped[0]}")
    rows = np.flatnonzero(kept)
    if problems.count:  # labels are read as they stand, so that their problems are told too
        rows = np.arange(len(files))
    if skipped and not problems.count:
        told = f"{len(skipped)} of {len(files)} images skipped (the first, {skipped[0]})"
        warnings.warn(f"{where}: {told}", stacklevel=2)
        about = f"{about} {told}.".strip()
    cells = {key: values[rows] for key, values in columns.cells.items()}
    return build(
        name or full.name.removesuffix(".gz").removesuffix(".csv"),
        where,
        columns.roles,
        x[rows],
        cells,
        problems,
        lambda row: columns.at(int(rows[row])),
        missing,
        classes,
        "error",
        about,
    )


def _roles(chosen: Roles) -> Roles:
    return dataclasses.replace(chosen, inputs=(), texts=chosen.inputs[:1])


def _decode(path: pathlib.Path, size: tuple[int, ...], channels: int, max_bytes: int, max_pixels: int) -> np.ndarray:
    """Return an image as [height, width, channels] in [0, 1].

    Raises:
      DataError: for what is no image, one too large, or one cut short.
    """
    from PIL import Image

    where = f'image "{path.name}"'
    data = read(path, max_bytes=max_bytes)
    try:
        warned = warnings.catch_warnings(action="ignore")  # of metadata, which is not used
        with warned, Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise DataError(f"{where}: {image.width} x {image.height} pixels: must be at most {max_pixels:,}")
            plain = image.convert("RGB" if channels == 3 else "L")
            scaled = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    except DataError:
        raise
    except Image.UnidentifiedImageError:
        raise DataError(f"{where}: does not decode (must be one of {', '.join(FORMATS)})") from None
    except (
        *(OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError),
        *(struct.error, zlib.error, Image.DecompressionBombError),
    ) as error:
        raise DataError(f"{where}: does not decode ({error})") from None
    return np.asarray(scaled, dtype=np.float32).reshape(*size, channels) / np.float32(255)
