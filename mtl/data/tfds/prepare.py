"""Writing data as data sets of TFDS, in ArrayRecord files, without TensorFlow and in little memory."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mtl.data.extras import needs
from mtl.data.problems import DataError
from mtl.data.tfds.recipe import Contents, Recipe
from mtl.data.tfds.road_scenes_recipe import ROAD_SCENES
from mtl.data.tfds.source import root
from mtl.data.tfds.tox21_recipe import TOX21_RECIPE
from mtl.tasks import suggest

#: Data sets that ``prepare`` writes.
PREPARED: dict[str, Recipe] = {"road_scenes": ROAD_SCENES, "tox21": TOX21_RECIPE}

_VERSION = "1.0.0"

# Examples made at once.
_CHUNK = 256

# Bytes of inputs in a file: what a killed run loses at most.
_SHARD_BYTES = 2**26


def prepare(
    name: str, data_dir: str = "", progress: Callable[[int, int], None] = lambda done, total: None, **options: Any
) -> pathlib.Path:
    """Write a data set so that ``tfds:NAME``, and TFDS itself, read it; return its folder.

    What is there already is kept. The set appears whole or not at all: files go to a folder of another name, which
    is renamed at the end. A run that was killed is gone on with after its last whole file (of about 64 MB); what
    another version of the code left is removed. Two runs at once wait for each other. Memory does not grow with
    the number of drawn examples: 256 are made at a time (TFDS's own writer holds up to 1 GB, and without shuffling
    everything).

    Args:
      name: one of ``PREPARED``.
      data_dir: the folder of prepared data, see ``mtl.data.tfds.source.root``.
      progress: told (examples done, of how many).
      **options: of ``road_scenes``, those of ``road_scenes_table``, and ``quality``, from 1 to 95: images are kept as
        JPEG of it (0: as they are). Of ``tox21``: ``bins``; ``directory``, the folder
        that holds DeepChem's file; ``download``, whether it may be fetched if it is not there. What decides the
        contents makes the name of the configuration.

    Raises:
      DataError: for a data set that is not prepared here, an option that does not exist, a source that is not there,
        or a folder that cannot be written.
    """
    if name not in PREPARED:
        raise DataError(f'data "{name}": is not prepared by mtl: {suggest(name, PREPARED)}')
    needs("tensorflow_datasets", "tfds", "Prepared data sets")
    needs("array_record", "tfds", "Prepared data sets")
    recipe = PREPARED[name]
    for option in options:
        if option not in recipe.options:
            raise DataError(f'data "{name}" has no option "{option}": {suggest(option, recipe.options)}')
    full = {**recipe.options, **options}
    for option in recipe.whole:
        if not isinstance(full[option], int):
            raise DataError(f'data "{name}": {option} = {full[option]!r}: must be a whole number')
    try:
        recipe.check(full)
    except TypeError as error:
        raise DataError(f'data "{name}": an option is no number ({error})') from None
    except ValueError as error:
        raise DataError(str(error)) from None
    start = root(data_dir)
    config = config_name({k: full[k] for k in recipe.named if full[k] != recipe.options[k]})
    try:
        (start / name / config).mkdir(parents=True, exist_ok=True)
        with _alone(start / name / ".prepare.lock"):
            return _write(start / name / config, name, lambda: recipe.open(full, start), progress)
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

    # Not followed and not emptied: in a folder from elsewhere the name may be a link to a file of somebody's.
    with open(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "rb+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(
    place: pathlib.Path, name: str, opened: Callable[[], Contents], progress: Callable[[int, int], None]
) -> pathlib.Path:
    """Write what is missing of a data set; the caller holds the lock."""
    import tensorflow_datasets as tfds

    folder = place / _VERSION
    if (folder / "dataset_info.json").is_file():
        return folder
    contents = opened()
    partial, total = place / f"incomplete-{contents.digest}", contents.total
    for left in place.glob("incomplete-*"):
        if left != partial:
            shutil.rmtree(left)
    partial.mkdir(exist_ok=True)
    features = tfds.features.FeaturesDict(contents.features())
    each = max(_CHUNK, _SHARD_BYTES // contents.bytes_each // _CHUNK * _CHUNK)
    begins = range(0, total, each)
    for number, begin in enumerate(begins):
        end = min(begin + each, total)
        path = partial / f"{name}-train.array_record-{number:05d}-of-{len(begins):05d}"
        if not path.is_file():
            _write_file(path, features, begin, end, contents, lambda done: progress(done, total))
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
        description=contents.description,
        citation=contents.citation or None,
        disable_shuffling=True,
    )
    os.replace(partial, folder)
    return folder


def _write_file(
    path: pathlib.Path,
    features: Any,
    begin: int,
    end: int,
    contents: Contents,
    progress: Callable[[int], None],
) -> None:
    """Write the examples from ``begin`` to ``end`` − 1; the file has its name when it is whole."""
    from array_record.python import array_record_module

    unfinished = path.with_name(f".{path.name}")
    writer = array_record_module.ArrayRecordWriter(str(unfinished), "group_size:1")
    for first in range(begin, end, _CHUNK):
        for example in contents.examples(first, min(first + _CHUNK, end)):
            writer.write(features.serialize_example(example))
        progress(first)
    writer.close()
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)
