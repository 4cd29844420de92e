"""A folder of images and a CSV file of their labels."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from mtl.data.paths import resolve
from mtl.data.picture import MAX_PIXELS, Picture
from mtl.data.problems import DataError
from mtl.data.readers.columns import Roles, build, choose
from mtl.data.readers.csv_file import read_columns
from mtl.data.readers.options import ReadOptions, reader
from mtl.data.table import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageOptions(ReadOptions):
    """Options of ``images_table``; columns that are not named are ignored.

    Args:
      size: (height, width) that images are scaled to, at least 1 each.
      folder: that the images' paths start from and must stay in; the CSV file's if empty.
      file_column: the column of their paths.
      channels: 3 for colour, the default, or 1 for grey.
      bad_images: what to do with an image that is absent or does not decode: ``error``, the default, or ``skip`` it;
        how many were skipped is said in ``about`` and in a warning.
      max_pixels: the most pixels an image may have before it is scaled; 50 million by default.
      ground: the colour behind transparent pixels, by a name or as ``#rrggbb``.
    """

    size: Sequence[int]
    folder: str = ""
    file_column: str = "file"
    channels: int = 3
    bad_images: str = "error"
    max_pixels: int = MAX_PIXELS
    ground: str = "white"


@reader(ImageOptions, without=("inputs", "missing_inputs"))
def images_table(path: str, options: ImageOptions) -> Table:
    """Return the table of images whose file names and labels stand in a CSV file.

    Images become [0, 1] as ``Picture`` says: turned upright, laid on ``ground``, scaled to ``size`` without keeping the
    aspect. ``max_bytes`` is the most that the table of images may hold, and any file.

    Args:
      path: of the CSV file, inside the data directory; its other columns are labels or ignored.
      options: see ``ImageOptions``; given by name.

    Returns:
      The table; inputs [N, height, width, channels].

    Raises:
      DataError: for everything that is wrong, one sentence each with file, line and column.
    """
    picture = Picture(options.size, options.channels, options.ground)
    if not picture.size:
        raise DataError("size = (): must be (height, width), at least 1 each")
    full = resolve(path, options.directory)
    if options.bad_images not in ("error", "skip"):
        raise DataError(f'bad_images = "{options.bad_images}": must be "error" or "skip"')
    columns = read_columns(
        full,
        options,
        lambda names: _roles(
            choose(names, options.labels, options.file_column, options.ignore, options.groups, options.part)
        ),
    )
    where, problems = columns.where, columns.problems
    (file_column,) = columns.roles.texts
    files = columns.cells[file_column]
    shape = (len(files), *picture.size, options.channels)
    if 4 * int(np.prod(shape, dtype=object)) > options.max_bytes:
        raise DataError(f"{where}: images {shape} in float32: must be at most max_bytes = {options.max_bytes:,}")
    root = str(resolve(options.folder, options.directory) if options.folder else full.parent)
    x, kept, skipped = np.zeros(shape, np.float32), np.ones(len(files), dtype=bool), []
    for row, file in enumerate(files):
        try:
            with warnings.catch_warnings(action="ignore"):  # of metadata that is not used
                x[row] = picture.read(resolve(str(file).strip(), root), "", options.max_bytes, options.max_pixels)
        except DataError as error:
            kept[row] = False
            if options.bad_images == "error" or "leaves the data directory" in str(error):
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
        warnings.warn(f"{where}: {told}", stacklevel=3)
        options = dataclasses.replace(options, about=f"{options.about} {told}.".strip())
    cells = {key: values[rows] for key, values in columns.cells.items()}
    return build(
        where,
        columns.roles,
        x[rows],
        cells,
        problems,
        lambda row: columns.at(int(rows[row])),
        options.named(columns.name),
        {"picture": dataclasses.asdict(picture)},
    )


def _roles(chosen: Roles) -> Roles:
    return dataclasses.replace(chosen, inputs=(), texts=chosen.inputs[:1])
