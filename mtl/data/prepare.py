"""Writing drawn road scenes as a data set of TFDS, in ArrayRecord files, without TensorFlow and in little memory."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mtl.data import counter, drawing, road_background, road_objects, road_scenes
from mtl.data.extras import needs
from mtl.data.problems import DataError
from mtl.data.road_scenes import TASKS, check_options, draw_scenes, road_scenes_table
from mtl.data.tfds_source import root
from mtl.tasks import suggest

#: Data sets that ``prepare`` writes.
PREPARED = ("road_scenes",)

_VERSION = "1.0.0"

# Images drawn at once.
_CHUNK = 256

# Bytes of images in a file: what a killed run loses at most.
_SHARD_BYTES = 2**26


def prepare(
    name: str, directory: str = "", progress: Callable[[int, int], None] = lambda done, total: None, **options: Any
) -> pathlib.Path:
    """Write a drawn data set so that ``tfds:NAME``, and TFDS itself, read it; return its folder.

    What is there already is kept. The set appears whole or not at all: files go to a folder of another name, which
    is renamed at the end. A run that was killed is gone on with after its last whole file (of about 64 MB); what
    another version of the drawing left is removed. Two runs at once wait for each other. Memory does not grow with
    the number of examples: 256 images are drawn at a time (TFDS's own writer holds up to 1 GB, and without shuffling
    everything).

    Args:
      name: one of ``PREPARED``.
      directory: the folder of prepared data, see ``mtl.data.tfds_source.root``.
      progress: told (examples done, of how many).
      **options: those of ``road_scenes_table``, and ``quality``, from 1 to 95: images are compressed as JPEG of it (0:
        they are kept as they are); they make the name of the configuration.

    Raises:
      DataError: for a data set that is not drawn, an option that does not exist, or a folder that cannot be written.
    """
    if name not in PREPARED:
        raise DataError(f'data "{name}": is not prepared by mtl: {suggest(name, PREPARED)}')
    needs("tensorflow_datasets", "tfds", "Prepared data sets")
    needs("array_record", "tfds", "Prepared data sets")
    defaults = {k: p.default for k, p in inspect.signature(road_scenes_table).parameters.items()} | {"quality": 0}
    for option in options:
        if option not in defaults:
            raise DataError(f'data "{name}" has no option "{option}": {suggest(option, defaults)}')
    full = {**defaults, **options}
    for option in ("examples", "size", "seed", "quality"):
        if not isinstance(full[option], int):
            raise DataError(f'data "{name}": {option} = {full[option]!r}: must be a whole number')
    if not 0 <= full["quality"] <= 95:
        raise DataError(f'data "{name}": quality = {full["quality"]}: must be from 1 to 95 (0: no compression)')
    if full["quality"]:
        needs("PIL", "images", "JPEG images")
    try:
        check_options(**_drawn(full))
    except TypeError as error:
        raise DataError(f'data "{name}": an option is no number ({error})') from None
    except ValueError as error:
        raise DataError(str(error)) from None
    start = root(directory)
    config = config_name({k: v for k, v in full.items() if v != defaults[k]})
    try:
        (start / name / config).mkdir(parents=True, exist_ok=True)
        with _alone(start / name / ".prepare.lock"):
            return _write(start / name / config, name, full, progress)
    except OSError as error:
        raise DataError(f'data "{name}": {start} cannot be written ({error.strerror or error})') from None


def config_name(options: Mapping[str, Any]) -> str:
    """Return what a configuration with these options is called.

    >>> config_name({"size": 32, "examples": 70000}), config_name({})
    ('examples_70000-size_32', 'default')
    """
    return "-".join(f"{k}_{options[k]}" for k in sorted(options)) or "default"


@contextlib.contextmanager
def _alone(lock: pathlib.Path) -> Iterator[None]:
    """Wait until no other process prepares; the system lets go of the lock of one that is killed."""
    import fcntl  # here: there is none on Windows, where this module can still be looked at

    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(
    place: pathlib.Path, name: str, options: Mapping[str, Any], progress: Callable[[int, int], None]
) -> pathlib.Path:
    """Write what is missing of a data set; the caller holds the lock."""
    import tensorflow_datasets as tfds

    folder, partial = place / _VERSION, place / f"incomplete-{_digest(options)}"
    if (folder / "dataset_info.json").is_file():
        return folder
    for left in place.glob("incomplete-*"):
        if left != partial:
            shutil.rmtree(left)
    partial.mkdir(exist_ok=True)
    size, total = options["size"], options["examples"]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg")
            if options["quality"]
            else tfds.features.Tensor(shape=(size, size, 3), dtype=np.uint8, encoding="bytes"),
            **{task: tfds.features.Scalar(dtype=np.float32) for task in TASKS},
        }
    )
    each = max(_CHUNK, _SHARD_BYTES // (3 * size * size) // _CHUNK * _CHUNK)
    begins = range(0, total, each)
    for number, begin in enumerate(begins):
        end = min(begin + each, total)
        path = partial / f"{name}-train.array_record-{number:05d}-of-{len(begins):05d}"
        if not path.is_file():
            _write_file(path, features, begin, end, options, lambda done: progress(done, total))
        progress(end, total)
    template = tfds.core.ShardedFileTemplate(
        data_dir=partial, dataset_name=name, split="train", filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=[min(each, total - begin) for begin in begins],
        num_bytes=sum(path.stat().st_size for path in partial.glob("*.array_record-*")),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=partial,
        features=features,
        split_infos=[split],
        version=_VERSION,
        filename_template=template,
        check_data=False,  # TFDS would read an example by TensorFlow.
        description=f"Drawn road scenes: {dict(options)}. No licence needed.",
        disable_shuffling=True,
    )
    os.replace(partial, folder)
    return folder


def _write_file(
    path: pathlib.Path,
    features: Any,
    begin: int,
    end: int,
    options: Mapping[str, Any],
    progress: Callable[[int], None],
) -> None:
    """Write the examples from ``begin`` to ``end`` − 1; the file has its name when it is whole."""
    from array_record.python import array_record_module

    drawn = {k: v for k, v in _drawn(options).items() if k != "examples"}
    unfinished = path.with_name(f".{path.name}")
    writer = array_record_module.ArrayRecordWriter(str(unfinished), "group_size:1")
    for first in range(begin, end, _CHUNK):
        rows = np.arange(first, min(first + _CHUNK, end))
        images, labels = draw_scenes(rows, **drawn)
        for i in range(len(rows)):
            image = _jpeg(images[i], options["quality"]) if options["quality"] else images[i]
            example = {"image": image, **{task: np.float32(labels[task][i]) for task in TASKS}}
            writer.write(features.serialize_example(example))
        progress(first)
    writer.close()
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def _drawn(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the drawing, without that of how images are kept."""
    return {k: v for k, v in options.items() if k != "quality"}


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(image).save(held, format="JPEG", quality=quality)
    return held.getvalue()


def _digest(options: Mapping[str, Any]) -> str:
    """Return what files depend on: the options and the code that draws."""
    digest = hashlib.sha256(repr(sorted(options.items())).encode())
    for module in (counter, drawing, road_background, road_objects, road_scenes):
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()[:16]
