"""Images changed at random while they train: pure functions on a batch, on the device, with labels and masks.

A batch is changed in two steps. ``draw`` draws, for the whole batch, what happens to each row: keys, and for rows that
are mixed the other row and its own changes. ``change`` does it to any part of the batch. What happens to a row depends
on the step and on where the row stands in its batch alone, not on the micro-batch, the block or the device that
computes it.

Inputs are images in [0, 1], before they are standardised; of several leaves, the one that holds them is changed.
Validation and test inputs are never changed.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl.config.augmentation import Colour, Crop, Cutmix, Cutout, Flip, Mixup, Randaugment, Spec
from mtl.inputs import image_leaf
from mtl.train import colour, geometry, threefry
from mtl.train.program import Hypers, Indices, Program, PyTree, key_for

#: The purpose that augmentation's randomness is drawn for.
AUGMENT = zlib.crc32(b"augment")

Images = Float[Array, "batch height width channels"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mixing:
    """How rows are mixed with others.

    Attributes:
      other: the other rows, as they are after the operations before.
      mixed: whether a row is mixed at all, [rows].
      share: λ of mixup, or of cutmix as it was drawn, [rows].
      centre: of cutmix's rectangle, in sides, [rows, 2].
    """

    other: Indices
    mixed: Any
    share: Any
    centre: Any


def draw(spec: Spec, rng: Array, plain: Indices, alike: bool = True) -> Indices:
    """Return a batch with what happens to each of its rows, and which labels are left.

    Args:
      spec: the operations, in order.
      rng: a key of the step's own.
      plain: the whole batch, to which nothing happens.
      alike: whether any two rows are mixed; else each row shows one task, and is mixed with rows of the same one.
    """
    drawn, number = plain, jnp.arange(plain.rows.shape[0])
    for place, operation in enumerate(spec):
        key = threefry.fold_in(rng, place)
        if isinstance(operation, (Mixup, Cutmix)):
            how = _mixing(operation, key, drawn, alike)
            left = drawn.mask & (how.other.mask | ~how.mixed[:, None])
            drawn = Indices(drawn.rows, left, (*drawn.changes, how))
        else:
            keys = jax.vmap(lambda i, key=key: threefry.fold_in(key, i))(number)
            drawn = dataclasses.replace(drawn, changes=(*drawn.changes, keys))
    return drawn


def changed(program: Program, hypers: Hypers, sample: Callable[[Array], Indices]) -> Callable[[Array], Indices]:
    """Return a sampler (see ``sampling.make_sampler``) whose batches are changed as the program says.

    Where a batch has B rows of each task, what happens to those of a task depends on the seed, the task and how many
    batches of it were drawn before: regimes of one replicate see the same sequence of changed target batches.

    Args:
      program: the phase.
      hypers: its numbers.
      sample: draws plain batches.
    """
    spec, tasks = program.augment, program.tasks
    if not spec:
        return sample
    each = program.sampling == "per_task" or len(tasks) == 1

    def mixed(step: Array) -> Indices:
        key = threefry.fold_in(key_for(hypers.seed, AUGMENT, hypers.streams[-1]), hypers.offset[0] + step)
        return draw(spec, key, sample(step), program.sampling == "rows")

    def per_task(step: Array) -> Indices:
        keys = [
            threefry.fold_in(key_for(hypers.seed, AUGMENT, hypers.streams[i]), hypers.offset[i] + step)
            for i in range(len(tasks))
        ]
        blocks = jax.tree.map(lambda a: a.reshape(len(tasks), -1, *a.shape[1:]), sample(step))
        drawn = jax.vmap(functools.partial(draw, spec))(jnp.stack(keys), blocks)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), drawn)

    return per_task if each else mixed


def _mixing(op: Mixup | Cutmix, key: Array, drawn: Indices, alike: bool) -> Mixing:
    order, share, chance, where = jax.random.split(key, 4)
    size = drawn.rows.shape[0]
    other = jax.random.permutation(order, size)
    if not alike:
        # The rows of each task, in their order and in a random one: a permutation within each task.
        task = jnp.argmax(drawn.mask, axis=1)
        inside = jnp.argsort(task[other], stable=True)
        other = jnp.zeros(size, other.dtype).at[jnp.argsort(task, stable=True)].set(other[inside])
    return Mixing(
        other=jax.tree.map(lambda a: a[other], drawn),
        mixed=jax.random.bernoulli(chance, op.probability, (size,)),
        share=_beta(share, op.alpha, size),
        centre=jax.random.uniform(where, (size, 2)),
    )


#: Places at which the quantiles of a beta distribution are known.
_PLACES = 4096


@functools.lru_cache(maxsize=64)
def _quantiles(alpha: float) -> np.ndarray:
    """Return the quantiles of Beta(α, α) at 0, 1/4096, …, 1."""
    import scipy.special  # Here: it takes a tenth of the time of all other imports, and few phases mix images.

    return scipy.special.betaincinv(alpha, alpha, np.linspace(0, 1, _PLACES + 1)).astype(np.float32)


def _beta(key: Array, alpha: float, size: int) -> Float[Array, " size"]:
    """Return draws from Beta(α, α): its quantiles, linear in between, so that no probability is off by over 2⁻¹².

    ``jax.random.beta`` rejects in loops, which take 1.3 s to compile for each place that draws.
    """
    table = jnp.asarray(_quantiles(alpha))
    place = jax.random.uniform(key, (size,)) * _PLACES
    low = place.astype(jnp.int32)
    return table[low] + (place - low) * (table[low + 1] - table[low])


def change(
    spec: Spec, drawn: Indices, fetch: Callable[[Array], tuple[PyTree, dict[str, Any]]]
) -> tuple[PyTree, dict[str, Any]]:
    """Return the inputs and labels of rows, their images and labels changed as was drawn.

    Of two rows mixed, with weights λ and 1 − λ:

    - a label is present only if it is in both: half a label is none, and taking λ of one row's alone would train on
      a wrong target. (At a share p of labels present, p² are left: mix where labels are many.) Where each row shows
      one task, rows of the same task are mixed, and none is lost.
    - numbers, 0 and 1 among them, become λ y + (1 − λ) y'; class ids become [rows, C] probabilities,
      λ e_y + (1 − λ) e_y', which ``losses.values`` takes in place of ids.
    - what a masked slot holds changes nothing.

    Labels of each pixel go where their pixels go; those that are cut out, or come from outside of the image, are
    missing.

    Args:
      spec: the operations that it was drawn for.
      drawn: all rows of a batch, or a part.
      fetch: from rows to their inputs, images in [0, 1] and what is beside them, and labels, [rows, …] by a task
        that has their classes.

    >>> from mtl.config.augmentation import parse
    >>> x, spec = jnp.linspace(0, 1, 48).reshape(1, 4, 4, 3), parse([("flip", {"probability": 1.0})])
    >>> drawn = draw(spec, jax.random.key(0), Indices(jnp.arange(1), jnp.zeros((1, 0), bool)))
    >>> bool((change(spec, drawn, lambda rows: (x[rows], {}))[0] == x[:, :, ::-1]).all())
    True
    """
    inputs, labels = fetch(drawn.rows)
    x = before = image_leaf(inputs)
    for operation, how in zip(spec, drawn.changes, strict=False):  # Another row ends before the one that mixes it.
        if isinstance(operation, (Mixup, Cutmix)):
            other, others = change(spec, how.other, fetch)
            x, labels = _mix(operation, how, x, labels, image_leaf(other), others)
        else:
            apply = jax.vmap(lambda k, image, op=operation: _CHANGES[type(op)](op, k, image))
            x = apply(how, x)
            for task, of_pixels in labels.items():
                if isinstance(of_pixels, tuple) and isinstance(operation, (Crop, Flip, Cutout)):
                    # As channels of an image: with the same key, the same happens to them.
                    own, there = of_pixels
                    if isinstance(operation, Cutout):
                        apply = jax.vmap(functools.partial(_cutout, dataclasses.replace(operation, fill=0.0)))
                    own, kept = (a[..., 0] for a in (apply(how, own[..., None]), apply(how, there[..., None])))
                    labels = {**labels, task: (own, kept)}
    return jax.tree.map(lambda leaf: x if leaf is before else leaf, inputs), labels


def _crop(op: Crop, key: Array, image: Array) -> Array:
    p = op.padding
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
        chosen, signed = _chosen(jax.random.fold_in(key, number), len(colour.OPERATIONS), op.magnitude)
        image = jax.lax.switch(chosen, list(colour.OPERATIONS.values()), image, signed)
    return image


def _randaugment(op: Randaugment, key: Array, image: Array) -> Array:
    colours = list(colour.OPERATIONS.values())
    for number in range(op.operations):
        count = len(colours) + len(geometry.OPERATIONS)
        chosen, signed = _chosen(jax.random.fold_in(key, number), count, op.magnitude)
        which = jnp.maximum(chosen - len(colours), 0)
        warp = lambda image, m, which=which: geometry.warp(image, which, m, op.fill)  # noqa: E731
        image = jax.lax.switch(jnp.minimum(chosen, len(colours)), [*colours, warp], image, signed)
    return image


def _chosen(key: Array, count: int, magnitude: float) -> tuple[Array, Array]:
    """Return (which of so many operations, its magnitude with a sign)."""
    which, sign = jax.random.split(key)
    return jax.random.randint(which, (), 0, count), magnitude * jnp.where(jax.random.bernoulli(sign), 1.0, -1.0)


_CHANGES: dict[type[Any], Any] = {
    Crop: _crop, Flip: _flip, Cutout: _cutout, Colour: _colour, Randaugment: _randaugment,
}  # fmt: skip


def _mix(
    op: Mixup | Cutmix, how: Mixing, x: Array, labels: Mapping[str, Array], other_x: Array, others: Mapping[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """Return images and labels mixed with others."""
    if isinstance(op, Mixup):
        kept = how.share
        # Equal pixels stay exact: x' + λ (x − x'); and a row that is not mixed keeps its bits.
        blend = other_x + _along(kept, x).astype(x.dtype) * (x - other_x)
        blended = jnp.where(_along(how.mixed, x), blend, x)
    else:
        height, width = x.shape[1:3]
        sides = jnp.array([[height, width]])
        half = jnp.sqrt(1.0 - how.share)[:, None] * sides / 2
        low, high = jnp.round(how.centre * sides - half), jnp.round(how.centre * sides + half)
        inside = jax.vmap(lambda a, b: _rectangle(height, width, a[0], b[0], a[1], b[1]))(low, high)
        blended = jnp.where((inside & how.mixed[:, None, None])[..., None], other_x, x)
        kept = 1.0 - inside.mean(axis=(1, 2))
    found = {}
    for task, label in labels.items():
        classes = dict(op.classes).get(task, 0)
        y, other = _soft(label, classes), _soft(others[task], classes)
        # Equal labels stay exact: y' + λ (y − y').
        found[task] = jnp.where(_along(how.mixed, y), other + _along(kept, y).astype(y.dtype) * (y - other), y)
    return blended, found


def _soft(y: Array, classes: int) -> Array:
    """Return labels as numbers that can be mixed; NaN where there is no such class."""
    if not jnp.issubdtype(y.dtype, jnp.integer):
        return y
    if not classes:
        raise ValueError("augment: class ids are mixed only where their number is known: parse(augment, tasks)")
    return jnp.where(((y >= 0) & (y < classes))[..., None], jax.nn.one_hot(y, classes), jnp.nan)


def _along(number: Array, a: Array) -> Array:
    """Return one number a row, ready to go with an array of rows."""
    return number.reshape(-1, *[1] * (a.ndim - 1))


def _rectangle(height: int, width: int, top: Array, bottom: Array, left: Array, right: Array) -> Array:
    """Return [height, width]: true in the rows top to bottom − 1 and the columns left to right − 1."""
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    return ((rows >= top) & (rows < bottom)) & ((columns >= left) & (columns < right))
