"""A folder of images and a CSV file of their labels."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from mtl.data.paths import MAX_BYTES, read, resolve, text_of
from mtl.data.picture import MAX_PIXELS, Picture
from mtl.data.problems import DataError, Problems
from mtl.data.readers.cells import Markers, Missing
from mtl.data.readers.columns import Labels, Roles, build, choose
from mtl.data.readers.csv_file import read_columns
from mtl.data.readers.labels import ClassNames
from mtl.data.table import Table


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
    max_pixels: int = MAX_PIXELS,
    ground: str = "white",
) -> Table:
    """Return the table of images whose file names and labels stand in a CSV file.

    Images become [0, 1] as ``Picture`` says: turned upright, laid on ``ground``, scaled to ``size`` without keeping the
    aspect.

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
      ground: the colour behind transparent pixels, by a name or as ``#rrggbb``.

    Returns:
      The table; inputs [N, height, width, channels].

    Raises:
      DataError: for everything that is wrong, one sentence each with file, line and column.
    """
    picture = Picture(size, channels, ground)
    if not picture.size:
        raise DataError("size = (): must be (height, width), at least 1 each")
    full = resolve(path, directory)
    where = f'file "{full.name}"'
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
    shape = (len(files), *picture.size, channels)
    if 4 * int(np.prod(shape, dtype=object)) > max_bytes:
        raise DataError(f"{where}: images {shape} in float32: must be at most max_bytes = {max_bytes:,}")
    root = str(resolve(folder, directory) if folder else full.parent)
    x, kept, skipped = np.zeros(shape, np.float32), np.ones(len(files), dtype=bool), []
    for row, file in enumerate(files):
        try:
            with warnings.catch_warnings(action="ignore"):  # of metadata that is not used
                x[row] = picture.read(resolve(str(file).strip(), root), "", max_bytes, max_pixels)
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
        reading={"picture": dataclasses.asdict(picture)},
    )


def _roles(chosen: Roles) -> Roles:
    return dataclasses.replace(chosen, inputs=(), texts=chosen.inputs[:1])
