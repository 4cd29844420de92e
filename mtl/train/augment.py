"""Images changed at random while they train: pure functions on a batch, on the device, with labels and masks.

A *spec* is a tuple of operations, applied in order. Randomness comes from one key a step, to be made as
``fold_in(key_for(seed, AUGMENT), step)``: nothing lives on the host, so a resumed run changes images the same way.
Inputs are images in [0, 1], before they are standardised. Validation and test inputs are never changed.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from mtl.tasks import Task, suggest
from mtl.train import colour

#: The purpose that augmentation's randomness is drawn for.
AUGMENT = zlib.crc32(b"augment")

Images = Float[Array, "batch height width channels"]
Labels = Mapping[str, Num[Array, "batch ..."]]
Masks = Mapping[str, Bool[Array, " batch"]]


@dataclasses.dataclass(frozen=True)
class Crop:
    """A window of the image's own size from the image padded on all sides, anywhere, uniformly.

    Attributes:
      padding: pixels on each side.
      mode: ``reflect`` or ``zeros``, what is outside.

    Source: K. He et al. 2016, Deep residual learning, section 4.2 (arXiv:1512.03385).
    """

    padding: int = 4
    mode: str = "reflect"


@dataclasses.dataclass(frozen=True)
class Flip:
    """Left and right exchanged.

    Attributes:
      probability: of each image.
    """

    probability: float = 0.5


@dataclasses.dataclass(frozen=True)
class Cutout:
    """A square of one value, its centre uniform in the image, what is outside cut off.

    Attributes:
      size: pixels of a side.
      fill: the value.
      probability: of each image.

    Source: T. DeVries and G. W. Taylor 2017 (arXiv:1708.04552).
    """

    size: int = 8
    fill: float = 0.5
    probability: float = 1.0


@dataclasses.dataclass(frozen=True)
class Colour:
    """Some operations on colours, drawn for each image with replacement from ``mtl.train.colour.OPERATIONS``.

    Attributes:
      operations: how many in a row.
      magnitude: in [0, 1], how strong.

    Source: E. D. Cubuk et al. 2020, RandAugment (arXiv:1909.13719), without its geometric operations.
    """

    operations: int = 2
    magnitude: float = 0.5


@dataclasses.dataclass(frozen=True)
class Mixup:
    """Image and labels λ of one row and 1 − λ of another, λ ~ Beta(α, α) for each row.

    Attributes:
      alpha: α.
      probability: of each row; the others stay as they are, labels and masks too.
      classes: (task, number of classes) of multiclass tasks; ``parse`` fills it in.

    Source: H. Zhang et al. 2018, mixup (arXiv:1710.09412).
    """

    alpha: float = 0.2
    probability: float = 1.0
    classes: tuple[tuple[str, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class Cutmix:
    """A rectangle from another row's image; λ is the share of the image that stays, and mixes the labels.

    The rectangle has √(1 − λ') of each side for λ' ~ Beta(α, α), its centre uniform, what is outside cut off.

    Attributes:
      alpha: α.
      probability: of each row; the others stay as they are, labels and masks too.
      classes: (task, number of classes) of multiclass tasks; ``parse`` fills it in.

    Source: S. Yun et al. 2019, CutMix (arXiv:1905.04899).
    """

    alpha: float = 1.0
    probability: float = 1.0
    classes: tuple[tuple[str, int], ...] = ()


Operation = Crop | Flip | Cutout | Colour | Mixup | Cutmix
Spec = tuple[Operation, ...]

#: What a config can name.
OPERATIONS: dict[str, type[Any]] = {
    "crop": Crop, "flip": Flip, "cutout": Cutout, "colour": Colour, "mixup": Mixup, "cutmix": Cutmix,
}  # fmt: skip

_RANGES: dict[str, tuple[float, float, str]] = {
    "padding": (1, 512, "from 1 to 512"),
    "probability": (0, 1, "from 0 to 1"),
    "size": (1, 4096, "from 1 to 4096"),
    "fill": (0, 1, "from 0 to 1"),
    "operations": (1, 16, "from 1 to 16"),
    "magnitude": (0, 1, "from 0 to 1"),
    "alpha": (1e-3, 1e3, "from 0.001 to 1000"),
}


def parse(augment: Sequence[Any], tasks: Sequence[Task] = ()) -> Spec:
    """Return the spec of a config's ``augment``: a name, or (name, {option: value}), for each operation.

    Args:
      augment: in order.
      tasks: the model's, so that class ids can be mixed.

    Raises:
      ValueError: for an operation or an option that does not exist, and a value out of its range.

    >>> parse(("flip", ("crop", {"padding": 2})))
    (Flip(probability=0.5), Crop(padding=2, mode='reflect'))
    >>> parse(("flop",))
    Traceback (most recent call last):
    ...
    ValueError: augment: "flop" does not exist: did you mean "flip"? Valid: ...
    """
    classes = tuple((t.name, t.num_classes) for t in tasks if t.kind == "multiclass")
    found: list[Operation] = []
    for entry in augment:
        named = isinstance(entry, str)
        if not named and not (isinstance(entry, Sequence) and len(entry) == 2 and isinstance(entry[1], Mapping)):
            raise ValueError(f"augment: {entry!r}: must be a name, or (name, {{option: value}})")
        name, options = (entry, {}) if named else (str(entry[0]), dict(entry[1]))
        if name not in OPERATIONS:
            raise ValueError(f'augment: "{name}" does not exist: {suggest(name, OPERATIONS)}')
        known = {f.name: f.default for f in dataclasses.fields(OPERATIONS[name]) if f.name != "classes"}
        for option, value in options.items():
            _check(name, option, value, known)
        if name in ("mixup", "cutmix"):
            options["classes"] = classes
        found.append(OPERATIONS[name](**options))
    return tuple(found)


def _check(name: str, option: str, value: Any, known: Mapping[str, Any]) -> None:
    if option not in known:
        raise ValueError(f'augment: {name} has no option "{option}": {suggest(str(option), known)}')
    if option == "mode":
        if value not in ("reflect", "zeros"):
            raise ValueError(f'augment: {name}.mode = {value!r}: must be "reflect" or "zeros"')
        return
    low, high, right = _RANGES[option]
    whole = isinstance(known[option], int)
    plain = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not plain or not low <= value <= high:
        raise ValueError(f"augment: {name}.{option} = {value!r}: must be {'a whole number ' * whole}{right}")


def augment(
    spec: Spec, rng: Array, x: Images, labels: Labels, mask: Masks, blocks: int = 1
) -> tuple[Images, dict[str, Array], dict[str, Array]]:
    """Return a batch with its images changed, and its labels and masks where rows are mixed.

    Of two rows mixed, with weights λ and 1 − λ:

    - a label is present only if it is in both: half a label is none, and taking λ of one row's alone would train on
      a wrong target. (At a share p of labels present, p² are left: mix where labels are many.)
    - numbers, 0 and 1 among them, become λ y + (1 − λ) y'; class ids become [rows, C] probabilities,
      λ e_y + (1 − λ) e_y', which a loss must take in place of ids.
    - what a masked slot holds changes nothing.

    Args:
      spec: the operations, in order.
      rng: a key of the step's own.
      x: images in [0, 1].
      labels: per task, [rows].
      mask: per task, [rows], true where the label is present and counts.
      blocks: rows come in so many equal blocks, within which they are mixed: one a task under ``per_task``
        sampling, where rows of different blocks have no label in common.

    Returns:
      (images, labels, masks).

    Raises:
      ValueError: for inputs that are no images, or rows that do not come in equal blocks.

    >>> x = jnp.linspace(0, 1, 48).reshape(1, 4, 4, 3)
    >>> changed, _, _ = augment(parse([("flip", {"probability": 1.0})]), jax.random.key(0), x, {}, {})
    >>> bool((changed == x[:, :, ::-1]).all())
    True
    """
    if x.ndim != 4:
        raise ValueError(f"augment: inputs {x.shape[1:]}: must be images (height, width, channels)")
    if x.shape[0] % blocks:
        raise ValueError(f"augment: {x.shape[0]} rows in {blocks} blocks: must be equal blocks")
    labels, mask = dict(labels), dict(mask)
    for number, operation in enumerate(spec):
        key = jax.random.fold_in(rng, number)
        if isinstance(operation, (Mixup, Cutmix)):
            x, labels, mask = _mix(operation, key, x, labels, mask, blocks)
        else:
            keys = jax.random.split(key, x.shape[0])
            x = jax.vmap(lambda k, image, op=operation: _CHANGES[type(op)](op, k, image))(keys, x)
    return x, labels, mask


def _crop(op: Crop, key: Array, image: Array) -> Array:
    p = op.padding
    if op.mode == "reflect" and p >= min(image.shape[:2]):
        raise ValueError(f"augment: crop.padding = {p}: must be below the image's sides {image.shape[:2]} to reflect")
    padded = jnp.pad(image, ((p, p), (p, p), (0, 0)), mode="reflect" if op.mode == "reflect" else "constant")
    top, left = jax.random.randint(key, (2,), 0, 2 * p + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def _flip(op: Flip, key: Array, image: Array) -> Array:
    return jnp.where(jax.random.bernoulli(key, op.probability), image[:, ::-1], image)


def _cutout(op: Cutout, key: Array, image: Array) -> Array:
    chance, where = jax.random.split(key)
    height, width = image.shape[:2]
    row, column = jax.random.randint(where, (2,), 0, jnp.array([height, width]))
    half = op.size // 2
    inside = _rectangle(height, width, row - half, row - half + op.size, column - half, column - half + op.size)
    inside &= jax.random.bernoulli(chance, op.probability)
    return jnp.where(inside[:, :, None], jnp.asarray(op.fill, image.dtype), image)


def _colour(op: Colour, key: Array, image: Array) -> Array:
    for number in range(op.operations):
        which, sign = jax.random.split(jax.random.fold_in(key, number))
        chosen = jax.random.randint(which, (), 0, len(colour.OPERATIONS))
        signed = op.magnitude * jnp.where(jax.random.bernoulli(sign), 1.0, -1.0)
        image = jax.lax.switch(chosen, list(colour.OPERATIONS.values()), image, signed)
    return image


_CHANGES: dict[type[Any], Any] = {Crop: _crop, Flip: _flip, Cutout: _cutout, Colour: _colour}


def _mix(
    op: Mixup | Cutmix, key: Array, x: Array, labels: dict[str, Array], mask: dict[str, Array], blocks: int
) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """Return a batch in which rows are mixed with a permutation of themselves, within each block."""
    rows, height, width = x.shape[:3]
    order, share, chance, where = jax.random.split(key, 4)
    size = rows // blocks
    within = jax.vmap(lambda k: jax.random.permutation(k, size))(jax.random.split(order, blocks))
    other = (within + size * jnp.arange(blocks)[:, None]).reshape(-1)
    drawn = jax.random.beta(share, op.alpha, op.alpha, (rows,))
    mixed = jax.random.bernoulli(chance, op.probability, (rows,))
    if isinstance(op, Mixup):
        kept = jnp.where(mixed, drawn, 1.0)
        weight = kept[:, None, None, None].astype(x.dtype)
        # Equal pixels stay exact: x' + λ (x − x'); and a row that is not mixed keeps its bits.
        images = jnp.where(mixed[:, None, None, None], x[other] + weight * (x - x[other]), x)
    else:
        sides = jnp.sqrt(1.0 - drawn)[:, None] * jnp.array([[height, width]])
        centre = jax.random.uniform(where, (rows, 2)) * jnp.array([[height, width]])
        low, high = jnp.round(centre - sides / 2), jnp.round(centre + sides / 2)
        rectangles = jax.vmap(lambda a, b: _rectangle(height, width, a[0], b[0], a[1], b[1]))(low, high)
        inside = rectangles & mixed[:, None, None]
        images = jnp.where(inside[..., None], x[other], x)
        kept = 1.0 - inside.mean(axis=(1, 2))
    new_labels, new_mask = {}, {}
    for task, y in labels.items():
        present = mask[task]
        soft = _soft(y, present, dict(op.classes).get(task, 0))
        share_kept = kept.reshape(rows, *[1] * (soft.ndim - 1)).astype(soft.dtype)
        # Equal labels stay exact: y' + λ (y − y').
        new_labels[task] = soft[other] + share_kept * (soft - soft[other])
        new_mask[task] = present & (present[other] | ~mixed)
    return images, new_labels, new_mask


def _soft(y: Array, present: Array, classes: int) -> Array:
    """Return labels as numbers that can be mixed, 0 where missing, whatever stood there."""
    if jnp.issubdtype(y.dtype, jnp.integer):
        if not classes:
            raise ValueError("augment: class ids are mixed only where their number is known: parse(augment, tasks)")
        return jax.nn.one_hot(jnp.where(present, y, 0), classes) * present[:, None]
    return jnp.where(present.reshape(-1, *[1] * (y.ndim - 1)), y, 0)


def _rectangle(height: int, width: int, top: Array, bottom: Array, left: Array, right: Array) -> Array:
    """Return [height, width]: true in the rows top to bottom − 1 and the columns left to right − 1."""
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    return ((rows >= top) & (rows < bottom)) & ((columns >= left) & (columns < right))
