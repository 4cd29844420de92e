"""Data sets of TensorFlow Datasets, read without TensorFlow from ArrayRecord files that were prepared before."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtl.data.extras import needs
from mtl.data.paths import DATA_DIR
from mtl.data.picture import Picture, holds_pixels, unit
from mtl.data.problems import DataError, Problems, located
from mtl.data.readers.columns import build, choose, chosen_by
from mtl.data.readers.labels import class_names
from mtl.data.readers.options import ReadOptions, reader
from mtl.data.readers.part import part_of
from mtl.data.streamed import Streamed
from mtl.data.table import Table
from mtl.data.tfds.records import Records, damage, stacked
from mtl.host import files
from mtl.host.files import MAX_JSON_BYTES, FileError, parse

# Examples read at once: whole batches are five times as fast as one by one.
_BATCH = 1000

# name, name/config, name/config:1.0.0, as TFDS writes them.
_NAME = re.compile(r"[A-Za-z]\w*(/[\w+\-][\w+\-.]*)?(:\d+\.\d+\.\d+)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TfdsOptions(ReadOptions):
    """Options of ``tfds_table``; features stand for columns.

    Args:
      inputs: the input feature, or several numbers and vectors, which are put side by side in the order of their
        names. Images become [0, 1] as ``Picture`` says, grey or coloured as their feature is, and so do other arrays of
        two axes or more of unsigned numbers of one or two bytes (by 255 or 65,535).
      directory: the folder of prepared data; ``$MTL_DATA_DIR``, ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets`` if
        empty.
      name: of the table; the builder's if empty.
      about: what the data are; what TFDS says if empty.
      max_bytes: the most that the inputs may hold, in float32.
      split: names of splits, ``train+test``; all there are, in TFDS's order, if empty. With ``data.split = "official"``
        those that begin with ``test`` are for testing, with ``val`` or ``dev`` for validation.
      size: (height, width) to scale images to (bilinear); needed where they differ.
      examples: take the first so many; 0, the default, for all.
      stream: leave the inputs where they are and read them when they are needed; labels are kept in memory. The table
        is the same, its sha256 too, and so are the bits of whatever trains on it.
      ground: the colour behind transparent pixels, by a name or as ``#rrggbb``.
    """

    inputs: Sequence[str] | str = "image"
    split: str = ""
    size: Sequence[int] = ()
    examples: int = 0
    stream: bool = False
    ground: str = "white"


@reader(TfdsOptions, without=("ignore", "missing_inputs", "part", "sha256"))
def tfds_table(builder: str, options: TfdsOptions) -> Table:
    """Return the table of a prepared TFDS data set; nothing is ever downloaded.

    The data set must lie in the directory in the format ``array_record``, as ``mtl data prepare`` writes it, or TFDS
    itself where TensorFlow is installed: ``tfds.builder(NAME, file_format="array_record").download_and_prepare()``.

    Features of nested dictionaries are named with points (``attributes.Smiling``). A class label gives a task with
    its class names, −1 meaning missing; a sequence of class labels gives one binary task a class; a vector [K] gives
    K tasks; other numbers and texts are read as ``csv_table`` reads columns, NaN and blanks being missing.

    Args:
      builder: its name, with config and version where there are several: ``name/config:1.0.0``.
      options: see ``TfdsOptions``; given by name.

    Returns:
      The table; inputs [N, …] in the order of the files.

    Raises:
      DataError: where nothing is prepared, for a feature that does not exist, and for damaged files.

    Source: https://www.tensorflow.org/datasets/tfless_tfds.
    """
    needs("tensorflow_datasets", "tfds", "Data sets of TFDS")
    needs("array_record", "tfds", "Data sets of TFDS")
    where = f'data "tfds:{builder}"'
    opened = _open(builder, options.directory)
    info, features = opened.info, _features(opened.info.features)
    chosen = chosen_by(options, [*features])
    if not isinstance(options.stream, bool):
        raise DataError(f"{where}: stream = {options.stream!r}: must be True or False")
    if options.examples < 0:
        raise DataError(f"{where}: examples = {options.examples}: must be at least 0 (0: all)")
    pictures = _pictures(features, chosen.inputs, options.size, options.ground, where)
    decoders = _left(opened.info.features, pictures)
    splits = _splits(opened, options.split, where)
    sources = _sources(opened, splits, where, decoders)
    records = Records(sources, features, chosen.all, where, pictures)
    total = min(options.examples or len(records), len(records))
    if not total:
        raise DataError(f"{where}: has no example")

    def inputs_of(rows: np.ndarray) -> np.ndarray:
        return stacked(records(rows), chosen.inputs, where)

    first = inputs_of(np.arange(1))
    shape = first.shape[1:]
    # Measured columns are cast once their mean and spread are known, not before.
    dtype = np.dtype(np.float64 if len(shape) == 1 else np.float32)
    x: np.ndarray | Streamed
    if options.stream:
        x = Streamed((total, *shape), lambda rows: _narrow(_of_shape(inputs_of(rows), shape, where), where))
        read = Records(_sources(opened, splits, where), features, chosen.cells, where, {})
    else:
        if dtype.itemsize * total * int(np.prod(shape, dtype=object)) > options.max_bytes:
            raise DataError(
                f"{where}: inputs {(total, *shape)}: must be at most {options.max_bytes:,} bytes in memory: "
                "raise max_bytes, or give stream=True"
            )
        x, read = np.empty((total, *shape), dtype), records

    def fill(begin: int) -> dict[str, list[Any]]:
        rows = np.arange(begin, min(begin + _BATCH, total))
        batch = read(rows)
        if isinstance(x, np.ndarray):
            unit(_of_shape(stacked(batch, chosen.inputs, where), shape, where), x[begin : rows[-1] + 1])
        return {feature: [example[feature] for example in batch] for feature in chosen.cells}

    cells: dict[str, list[Any]] = {feature: [] for feature in chosen.cells}
    with contextlib.closing(_in_threads(fill, range(0, total, _BATCH))) as parts:
        for part in parts:
            for feature, values in part.items():
                cells[feature] += values
    if isinstance(x, np.ndarray):
        x.setflags(write=False)  # Nobody else has it: it need not be copied.
    columns, kinds, declared = _columns(features, cells, chosen.labels, where)
    if chosen.groups:
        columns[chosen.groups] = _cells(cells[chosen.groups])
    reading: dict[str, Any] = {"divided_by": int(np.iinfo(first.dtype).max)} if holds_pixels(first) else {}
    if len(pictures) == len(chosen.inputs) == 1:
        reading["picture"] = dataclasses.asdict(pictures[chosen.inputs[0]])
    roles = choose([*columns, "x "], kinds, "x ", groups=chosen.groups)
    source = info.citation.strip() or "not stated"
    about = options.about or f"{info.description.strip()} Source: {source} TFDS {info.full_name}."
    return build(
        where,
        roles,
        x,
        columns,
        Problems(),
        lambda row: f"example {row}",
        dataclasses.replace(
            options.named(builder.replace("/", "_").partition(":")[0]),
            classes=declared | class_names(options.classes),
            about=about,
        ),
        reading,
        part=np.repeat([part_of(name) or 0 for name in splits], [len(source) for source in sources])[:total],
    )


def _in_threads(do: Callable[[int], Any], items: Sequence[int]) -> Generator[Any, None, None]:
    """Yield what is done with each item, in order: two threads, as reading and converting let go of Python's lock."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        try:
            yield from pool.map(do, items)
        finally:
            pool.shutdown(cancel_futures=True)


def _of_shape(batch: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    if batch.shape[1:] != shape:
        raise DataError(f"{where}: inputs {batch.shape[1:]} and {shape}: give size=(height, width)")
    return batch


def _narrow(batch: np.ndarray, where: str) -> np.ndarray:
    """Return streamed inputs in float32, if none of a table's changes by it."""
    found = unit(batch)
    if batch.ndim == 2 and not np.array_equal(found, batch, equal_nan=True):
        raise DataError(f"{where}: float32 changes inputs of {batch.dtype}: must be read without stream")
    return found


def place(builder: str, directory: str = "") -> pathlib.Path:
    """Return the folder in which a data set was prepared.

    Args:
      builder: its name, ``name``, ``name/config`` or with ``:1.0.0`` behind.
      directory: the folder of prepared data, see ``tfds_table``.

    Raises:
      DataError: for a name that cannot be, one that is not there, and one of which there are several.

    >>> place("../mnist")
    Traceback (most recent call last):
    ...
    mtl.data.problems.DataError: data "tfds:../mnist": must be tfds:NAME, tfds:NAME/CONFIG or tfds:NAME/CONFIG:1.0.0
    """
    where = f'data "tfds:{builder}"'
    if not _NAME.fullmatch(builder):
        raise DataError(f"{where}: must be tfds:NAME, tfds:NAME/CONFIG or tfds:NAME/CONFIG:1.0.0")
    start = root(directory)
    named, _, version = builder.partition(":")
    found = sorted((start / named).glob(f"{version or '*.*.*'}/dataset_info.json"))
    if "/" not in named:
        found += sorted((start / named).glob(f"*/{version or '*.*.*'}/dataset_info.json"))
    found = [path for path in found if "incomplete" not in path.parent.name]
    if not found:
        raise DataError(
            f"{where}: is not prepared in {start}, and nothing is downloaded: `mtl data prepare` writes road_scenes "
            f'and tox21; for others, with TensorFlow installed: tfds.builder("{named}", file_format="array_record", '
            "data_dir=…).download_and_prepare()"
        )
    if len({path.parent.parent for path in found}) > 1:
        raise DataError(f"{where}: say which: {', '.join(f'{named}/{p.parent.parent.name}' for p in found)}")
    return max(found, key=lambda path: tuple(map(int, path.parent.name.split(".")))).parent


def root(directory: str = "") -> pathlib.Path:
    """Return the folder of prepared data: the one given, or what the environment says, or TFDS's own."""
    named = directory or os.environ.get(DATA_DIR) or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(named).expanduser()


def _open(builder: str, directory: str) -> Any:
    """Return a read-only builder of a prepared data set: no code of the data set's own, no network."""
    folder = place(builder, directory)
    where = f'data "tfds:{builder}"'
    try:
        described = parse(files.read(folder / "features.json", MAX_JSON_BYTES))
        written = parse(files.read(folder / "dataset_info.json", MAX_JSON_BYTES)).get("fileFormat", "tfrecord")
        for file in folder.iterdir():
            if not file.is_file() and not file.is_dir():
                raise FileError(f"{file.name} is a pipe or a device")
    except (OSError, FileError) as error:
        raise DataError(f"{where}: {folder} is damaged ({error}): prepare it again") from None
    if written != "array_record":
        raise DataError(
            f'{where}: is prepared as {written}, which needs TensorFlow: prepare it with file_format="array_record"'
        )
    for used in _class_names(described):  # TFDS imports what is named here.
        if not used.startswith("tensorflow_datasets.core.features."):
            raise DataError(f"{where}: features.json names {used}: must be a feature of TFDS itself")
    import tensorflow_datasets as tfds

    with damage(where):
        return tfds.builder_from_directory(folder)


def _class_names(described: Any) -> Iterator[str]:
    if isinstance(described, Mapping):
        for key, value in described.items():
            if key in ("pythonClassName", "type") and isinstance(value, str):
                yield value
            yield from _class_names(value)
    elif isinstance(described, list):
        for value in described:
            yield from _class_names(value)


def _features(features: Any, prefix: str = "") -> dict[str, Any]:
    """Return ``{name: feature}`` of nested dictionaries of features, names joined by points: a task's has no slash."""
    found: dict[str, Any] = {}
    for name, feature in sorted(features.items()):  # What TFDS reads from a file comes in any order.
        full = f"{prefix}{name}".replace("/", ".")
        found |= _features(feature, f"{full}.") if hasattr(feature, "keys") else {full: feature}
    return found


def _pictures(
    features: Mapping[str, Any], inputs: Sequence[str], size: Sequence[int], ground: str, where: str
) -> dict[str, Picture]:
    """Return what is made of the inputs that are pictures, or pixels to be scaled to a size."""
    import tensorflow_datasets as tfds

    with located(where):
        grey, colour = (Picture(size, channels, ground) for channels in (1, 3))
    found = {}
    for name in inputs:
        feature = features[name]
        shape: tuple[int | None, ...] = feature.shape or ()
        dtype, image = np.dtype(feature.np_dtype), tfds.features.Image
        if isinstance(getattr(feature, "feature", None), image) or (isinstance(feature, image) and len(shape) != 3):
            raise DataError(f"{where}: feature {name} is several pictures an example: inputs must be one")
        stored = isinstance(feature, image) and dtype != np.float32  # TFDS hides floats in pictures.
        if size and not stored and (dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3)):
            raise DataError(f"{where}: inputs {dtype} {shape}: size= is for images of 1 or 3 channels")
        if size or stored:
            found[name] = grey if shape[2] in (1, 2) else colour
    return found


def _left(features: Any, pictures: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Return TFDS's decoders that leave pictures as they are stored, in its nested dictionaries."""
    import tensorflow_datasets as tfds

    found: dict[str, Any] = {}
    for name, feature in features.items():
        full = f"{prefix}{name}".replace("/", ".")
        if hasattr(feature, "keys"):
            if inner := _left(feature, pictures, f"{full}."):
                found[name] = inner
        elif full in pictures and isinstance(feature, tfds.features.Image):
            found[name] = tfds.decode.SkipDecoding()
    return found


def _splits(opened: Any, asked: str, where: str) -> list[str]:
    """Return the names of the splits that are read, in order."""
    there = list(opened.info.splits)
    names = [part.strip() for part in asked.split("+")] if asked else there
    for part in names:
        if there and part not in there:
            raise DataError(f'{where}: split "{part}": must be of {", ".join(there)}')
    return names


def _sources(opened: Any, splits: Sequence[str], where: str, decoders: Mapping[str, Any] | None = None) -> list[Any]:
    with damage(where):
        return [opened.as_data_source(split=split, decoders=decoders or None) for split in splits]


def _columns(
    features: Mapping[str, Any], cells: Mapping[str, list[Any]], kinds: Mapping[str, str], where: str
) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, tuple[str, ...]]]:
    """Return (cells of each task, their kinds, the class names that TFDS knows)."""
    import tensorflow_datasets as tfds

    columns: dict[str, np.ndarray] = {}
    found: dict[str, str] = {}
    classes: dict[str, tuple[str, ...]] = {}
    for label, kind in kinds.items():
        feature, values = features[label], cells[label]
        inner = getattr(feature, "feature", None)
        mine, kind_of = {}, kind
        if isinstance(feature, tfds.features.ClassLabel):
            names = np.array([*feature.names, None], dtype=object)  # −1, the last, is missing
            mine[label] = names[np.asarray(values, np.int64)]
            classes[label] = tuple(feature.names)
        elif isinstance(inner, tfds.features.ClassLabel):
            mine = {f"{label}.{each}": np.array([float(i in v) for v in values]) for i, each in enumerate(inner.names)}
            kind_of = "binary"
        elif len(feature.shape) == 1 and feature.shape[0]:
            mine = {f"{label}_{j}": column for j, column in enumerate(np.stack(values).T)}
        elif feature.shape == ():
            mine[label] = _cells(values)
        else:
            raise DataError(f"{where}: feature {label} of shape {feature.shape}: must be a label, a vector or classes")
        if twice := mine.keys() & columns.keys():
            raise DataError(f'{where}: two labels are called "{min(twice)}": leave one out')
        columns |= mine
        found |= dict.fromkeys(mine, kind_of)
    return columns, found, classes


def _cells(values: list[Any]) -> np.ndarray:
    """Return one value an example as numbers, or as texts with None where blank."""
    if any(isinstance(v, (str, bytes)) for v in values):
        return np.array([v.decode() if isinstance(v, bytes) else v for v in values], dtype=object)
    return np.asarray(values)
