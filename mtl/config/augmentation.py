"""What a config says of training images changed at random: a *spec*, a tuple of operations, applied in order.

How they are done stands in ``mtl.train.augment``; here is what can be asked for, and what is refused.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from mtl.inputs import image_leaf, leaves, structure
from mtl.options import checked
from mtl.ranges import Range, Share
from mtl.tasks import KINDS, Task, suggest

if typing.TYPE_CHECKING:
    import mtl.data.streamed

Operations = Annotated[int, Range(1, 16)]
Alpha = Annotated[float, Range(1e-3, 1e3)]


@dataclasses.dataclass(frozen=True)
class Crop:
    """A window of the image's own size from the image padded on all sides, anywhere, uniformly.

    Attributes:
      padding: pixels on each side.
      mode: ``reflect`` or ``zeros``, what is outside.

    Source: K. He et al. 2016, Deep residual learning, section 4.2 (arXiv:1512.03385).
    """

    padding: Annotated[int, Range(1, 512)] = 4
    mode: Literal["reflect", "zeros"] = "reflect"


@dataclasses.dataclass(frozen=True)
class Flip:
    """Left and right exchanged.

    Attributes:
      probability: of each image.
    """

    probability: Share = 0.5


@dataclasses.dataclass(frozen=True)
class Cutout:
    """A square of one value, its centre uniform in the image, what is outside cut off.

    Attributes:
      size: pixels of a side.
      fill: the value.
      probability: of each image.

    Source: T. DeVries and G. W. Taylor 2017 (arXiv:1708.04552).
    """

    size: Annotated[int, Range(1, 4096)] = 8
    fill: Share = 0.5
    probability: Share = 1.0


@dataclasses.dataclass(frozen=True)
class Colour:
    """Some operations on colours, drawn for each image with replacement from ``mtl.train.colour.OPERATIONS``.

    Attributes:
      operations: how many in a row.
      magnitude: in [0, 1], how strong.

    Source: E. D. Cubuk et al. 2020, RandAugment (arXiv:1909.13719), without its geometric operations.
    """

    operations: Operations = 2
    magnitude: Share = 0.5


@dataclasses.dataclass(frozen=True)
class Randaugment:
    """Some operations on colours and places, drawn for each image with replacement.

    They are those of ``mtl.train.colour.OPERATIONS`` and of ``mtl.train.geometry.OPERATIONS``, each as likely.

    Attributes:
      operations: how many in a row.
      magnitude: in [0, 1], how strong.
      fill: the value of what comes from outside the image.

    Source: E. D. Cubuk et al. 2020, RandAugment (arXiv:1909.13719).
    """

    operations: Operations = 2
    magnitude: Share = 0.3
    fill: Share = 0.5


@dataclasses.dataclass(frozen=True)
class Mixup:
    """Image and labels λ of one row and 1 − λ of another, λ ~ Beta(α, α) for each row.

    Attributes:
      alpha: α.
      probability: of each row; the others stay as they are, labels and masks too.
      classes: (task, number of classes) of multiclass tasks; ``parse`` fills it in.

    Source: H. Zhang et al. 2018, mixup (arXiv:1710.09412).
    """

    alpha: Alpha = 0.2
    probability: Share = 1.0
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

    alpha: Alpha = 1.0
    probability: Share = 1.0
    classes: tuple[tuple[str, int], ...] = ()


Operation = Crop | Flip | Cutout | Colour | Randaugment | Mixup | Cutmix
Spec = tuple[Operation, ...]

#: What a config can name.
OPERATIONS: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in typing.get_args(Operation)}


def parse(augment: Sequence[Any], tasks: Sequence[Task] = ()) -> Spec:
    """Return the spec of a config's ``augment``: a name, or (name, {option: value}), for each operation.

    Args:
      augment: in order.
      tasks: the model's, so that class ids can be mixed.

    Raises:
      ValueError: for an operation or an option that does not exist, a value out of its range, and labels mixed of a
        task whose focal factor is for whole ones.

    >>> parse(("flip", ("crop", {"padding": 2})))
    (Flip(probability=0.5), Crop(padding=2, mode='reflect'))
    >>> parse(("flop",))
    Traceback (most recent call last):
    ...
    ValueError: augment: "flop" does not exist: did you mean "flip"? Valid: ...
    """
    classes = tuple((t.name, t.num_classes) for t in tasks if t.labels == "ids")
    found: list[Operation] = []
    for entry in augment:
        named = isinstance(entry, str)
        if not named and not (isinstance(entry, Sequence) and len(entry) == 2 and isinstance(entry[1], Mapping)):
            raise ValueError(f"augment: {entry!r}: must be a name, or (name, {{option: value}})")
        name, options = (entry, {}) if named else (str(entry[0]), dict(entry[1]))
        if name not in OPERATIONS:
            raise ValueError(f'augment: "{name}" does not exist: {suggest(name, OPERATIONS)}')
        options = checked(OPERATIONS[name], options, f"augment: {name}.", name, without=("classes",))
        dense = next((t.name for t in tasks if t.shape), "")
        if dense and OPERATIONS[name] not in (Crop, Flip, Cutout, Colour):
            raise ValueError(f"augment: {name} does not change labels of pixels, and {dense} has some: leave it out")
        if OPERATIONS[name] in (Mixup, Cutmix):  # They mix rows, and with them their labels.
            for task in tasks:
                if task.focal_gamma:
                    raise ValueError(
                        f"augment: {name} mixes labels, and focal_gamma = {task.focal_gamma:g} of {task.name} judges "
                        "whole ones: leave one of them out"
                    )
                if task.labels == "ids" and (loss := task.loss or KINDS[task.kind].losses[0]) != "softmax":
                    raise ValueError(
                        f'augment: {name} mixes labels, and loss "{loss}" of {task.name} takes whole ones: '
                        "leave one of them out"
                    )
            options["classes"] = classes
        found.append(OPERATIONS[name](**options))
    return tuple(found)


def stated(spec: Spec) -> list[list[Any]]:
    """Return a spec as JSON holds it, every option stated; ``parse`` reads it.

    >>> stated(parse(("flip",)))
    [['flip', {'probability': 0.5}]]
    """
    return [[type(op).__name__.lower(), {k: v for k, v in vars(op).items() if k != "classes"}] for op in spec]


def described(spec: Spec) -> str:
    """Return a spec in words, for people.

    >>> described(parse(("flip", ("crop", {"padding": 2}))))
    'flip (probability 0.5), crop (padding 2, mode reflect)'
    """
    return ", ".join(f"{name} ({', '.join(f'{k} {v}' for k, v in options.items())})" for name, options in stated(spec))


def check_images(spec: Spec, x: mtl.data.streamed.Inputs, name: str, tasks: Sequence[Task] = ()) -> None:
    """Check that a data set's inputs are images that a spec can change.

    Args:
      spec: the spec; the empty one changes anything.
      x: inputs.
      name: the data set's, for the message.
      tasks: those that are trained on.

    Raises:
      ValueError: for inputs of which no leaf, or more than one, holds images; images not in [0, 1], or no larger than a
        crop's reflected padding; and what mixes rows, if there are other leaves beside.

    >>> import numpy as np
    >>> check_images(parse(("flip",)), np.zeros((2, 64)), "digits")
    Traceback (most recent call last):
    ...
    ValueError: augment: inputs of digits are of shape (64,): must be images (height, width, channels)
    """
    if not spec:
        return
    from mtl.data.streamed import Streamed  # Here, as data sets are of no use to who reads results.

    image = image_leaf(x)
    if image is None:
        several = ", one of them" if isinstance(x, Mapping) else ""
        raise ValueError(
            f"augment: inputs of {name} are of shape {structure(x)}: must be images (height, width, channels){several}"
        )
    for task in tasks:
        if task.shape and task.shape != image.shape[1:3] and any(isinstance(op, Crop | Flip | Cutout) for op in spec):
            raise ValueError(
                f"augment: {task.name} has labels at {task.shape} and images of {name} are {image.shape[1:3]}: must be "
                "one a pixel, to go where pixels go"
            )
    mixing = [type(op).__name__.lower() for op in spec if isinstance(op, Mixup | Cutmix)]
    if mixing and len(leaves(x)) > 1:
        raise ValueError(
            f"augment: {mixing[0]} mixes whole inputs, and those of {name} are not images alone: must be left out"
        )
    low, high = image.range if isinstance(image, Streamed) else (float(image.min()), float(image.max()))
    if not (low >= 0 and high <= 1):  # Not the other way round: of NaN it would be false.
        raise ValueError(f"augment: inputs of {name} go from {low:g} to {high:g}: must be in [0, 1]")
    for op in spec:
        if isinstance(op, Crop) and op.mode == "reflect" and op.padding >= min(image.shape[1:3]):
            raise ValueError(
                f"augment: crop.padding = {op.padding}: must be below the sides {image.shape[1:3]} of the images of "
                f"{name} to reflect"
            )
