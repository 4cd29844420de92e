"""Reading examples of prepared TFDS data sets by their numbers, from ArrayRecord files, without TensorFlow."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtl.data.picture import Picture, holds_pixels, unit
from mtl.data.problems import DataError


@contextlib.contextmanager
def damage(where: str) -> Iterator[None]:
    """Say in one sentence that files are damaged: readers raise whatever their parsers do."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise DataError(f"{where}: cannot be read ({type(error).__name__}: {said}): prepare it again") from None


class Records:
    """The examples of some splits, one after the other.

    Several threads may read at once.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        features: Mapping[str, Any],
        wanted: Sequence[str],
        where: str,
        pictures: Mapping[str, Picture],
    ) -> None:
        """Choose what to read.

        Args:
          sources: of each split, as TFDS gives them.
          features: all there are, by name.
          wanted: those to read.
          where: what the data are called in errors.
          pictures: what is made of the features that are pictures, or pixels to be scaled.
        """
        self._pictures = pictures
        self._sources, self._read, self._where = sources, _reader(features, wanted, sources, pictures), where
        self._begins = np.cumsum([0, *(len(source) for source in sources)])

    def __len__(self) -> int:
        """Return how many there are."""
        return int(self._begins[-1])

    def __call__(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Return examples by their numbers, ascending.

        Raises:
          DataError: for damaged files.
        """
        found: list[dict[str, Any]] = []
        cuts = np.searchsorted(rows, self._begins)
        for source, begin, low, high in zip(self._sources, self._begins, cuts, cuts[1:], strict=False):
            if low < high:
                with damage(self._where):
                    found += self._read(source, (rows[low:high] - begin).tolist())
        for name, picture in self._pictures.items():
            for row, example in zip(rows.tolist(), found, strict=True):
                if isinstance(example[name], bytes) or picture.size:
                    example[name] = picture.read(example[name], f"{self._where}, example {row}, {name}")
        return found


def _flat(example: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in example.items():
        full = f"{prefix}{name}".replace("/", ".")
        found |= _flat(value, f"{full}.") if isinstance(value, Mapping) else {full: value}
    return found


def _reader(
    features: Mapping[str, Any], wanted: Sequence[str], sources: Sequence[Any], pictures: Mapping[str, Picture]
) -> Callable[[Any, Sequence[int]], list[dict[str, Any]]]:
    """Return how to read a batch of examples: TFDS's own way, or where all is plain its records, twice as fast.

    Plain are scalars, class labels, images and arrays of bytes that are no part of a dictionary or a sequence. Images
    that are inputs are left as the bytes they are stored in.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    takes: dict[str, Callable[[Any], Any]] = {}
    for name in wanted:
        feature = features[name]
        kind, dtype = type(feature), np.dtype(feature.np_dtype)
        if kind is tfds.features.Image and name in pictures:
            takes[name] = _stored
            continue
        stored = getattr(feature, "_encoding", None)  # compressed arrays are left to TFDS
        if stored not in (tfds.features.Encoding.NONE, tfds.features.Encoding.BYTES):
            continue
        if kind in (tfds.features.Scalar, tfds.features.ClassLabel) and dtype.kind in "biuf":
            takes[name] = functools.partial(_scalar, dtype=dtype)
        elif kind is tfds.features.Tensor and dtype == np.uint8 and None not in feature.shape:
            takes[name] = functools.partial(_bytes, shape=feature.shape)
    records = all(type(getattr(s, "data_source", None)).__module__.startswith("array_record.") for s in sources)
    if len(takes) < len(set(wanted)) or any("." in name for name in wanted) or not records:
        with contextlib.suppress(ImportError):
            from PIL import EpsImagePlugin

            EpsImagePlugin.gs_binary = False  # TFDS opens images of any kind, and for this one starts Ghostscript.
        return lambda source, rows: [_flat(example) for example in source.__getitems__(rows)]

    def read(source: Any, rows: Sequence[int]) -> list[dict[str, Any]]:
        found = []
        for record in source.data_source.__getitems__(rows):
            held = tf_example_pb2.Example.FromString(record).features.feature
            found.append({name: take(held[name]) for name, take in takes.items()})
        return found

    return read


def _scalar(held: Any, dtype: np.dtype) -> Any:
    if stored := held.bytes_list.value:
        return np.frombuffer(stored[0], dtype)[0]
    (value,) = held.float_list.value or held.int64_list.value
    return value


def _bytes(held: Any, shape: tuple[int, ...]) -> np.ndarray:
    if stored := held.bytes_list.value:
        return np.frombuffer(stored[0], np.uint8).reshape(shape)
    return np.array(held.int64_list.value, np.uint8).reshape(shape)


def _stored(held: Any) -> bytes:
    return held.bytes_list.value[0]


def stacked(batch: list[dict[str, Any]], names: Sequence[str], where: str) -> np.ndarray:
    """Return a batch's inputs, [B, …] numbers as they are stored; several side by side, in float64."""
    columns = []
    for name in names:
        arrays = [np.asarray(example[name]) for example in batch]
        shapes = {a.shape for a in arrays}
        if len(shapes) > 1:
            raise DataError(f"{where}: inputs of shapes {sorted(shapes)[:2]}: give size=(height, width)")
        columns.append(np.stack(arrays))
    if len(columns) > 1:
        flat = [(unit(c) if holds_pixels(c) else c).reshape(len(batch), -1) for c in columns]
        x = np.concatenate(flat, axis=1, dtype=np.float64)
    else:
        x = columns[0][:, None] if columns[0].ndim == 1 else columns[0]
    if x.dtype.kind not in "biuf":
        raise DataError(f"{where}: inputs of dtype {x.dtype}: must be numbers")
    return x
