"""Models: Flax lives here and nowhere else; the rest sees ``init(rng, x)`` and ``apply(params, state, x, …)``.

A config file adds a model of its own with ``@mtl.models.register("mine")`` on a function that takes the options of
``config.model`` and returns any Linen module that makes features [batch, features]; or on a function or a class that
takes ``rngs`` beside them and returns an NNX module. Annotations say what options may be (see ``mtl.options``). One
that takes ``tasks`` is given the trial's, and may make ``{task: features}``, for each its own. An option ``vocabulary``
that a config leaves open becomes the number of ids that the data have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from mtl.inputs import Shape, vocabularies
from mtl.losses import registered
from mtl.models.anatomy import Anatomy, anatomy, untold
from mtl.models.cnn import CNN
from mtl.models.efficientnet_lite import EfficientNetLite
from mtl.models.embedding import Embedding
from mtl.models.linen import TOLD
from mtl.models.mlp import MLP
from mtl.models.mmoe import MMoE
from mtl.models.model import Model, stream_of
from mtl.models.numbered import numbered
from mtl.models.resnet import ResNet
from mtl.models.unet import UNet
from mtl.models.vit import ViT
from mtl.models.whole_numbers import whole_numbers
from mtl.options import check_free, checked, signature_of
from mtl.tasks import Task, suggest

__all__ = [
    "CNN",
    "HEAD_INITS",
    "MLP",
    "MODELS",
    "NOT_OPTIONS",
    "TOLD",
    "Anatomy",
    "EfficientNetLite",
    "Embedding",
    "MMoE",
    "Model",
    "ResNet",
    "UNet",
    "ViT",
    "anatomy",
    "build",
    "numbered",
    "options_of",
    "register",
    "stream_of",
    "untold",
    "whole_numbers",
]

#: What makes a backbone takes this beside its options.
NOT_OPTIONS = ("self", "parent", "name", "rngs", "tasks")

#: How the kernels of heads can begin; biases begin at zero.
HEAD_INITS = ("zeros", "lecun_normal")

#: Backbone factories by name.
MODELS: dict[str, Callable[..., Any]] = {
    "mlp": MLP,
    "cnn": CNN,
    "resnet": ResNet,
    "vit": ViT,
    "efficientnet_lite": EfficientNetLite,
    "unet": UNet,
    "mmoe": MMoE,
    "embedding": Embedding,
}


def register(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a backbone factory under ``name``, from a config file or elsewhere.

    Raises:
      ValueError: if the name is taken by another factory.
    """

    def decorate(factory: Callable[..., Any]) -> Callable[..., Any]:
        check_free(MODELS.get(name), factory, f'model "{name}"')
        MODELS[name] = factory
        return factory

    return decorate


def build(
    name: str, options: Mapping[str, Any], tasks: tuple[Task, ...], head_init: str = "zeros", dtype: str = "float32"
) -> Model:
    """Return the model of that name with a head for each task.

    Raises:
      ValueError: for an unknown name or option, naming the valid ones, and an option that cannot be.

    >>> model = build("mlp", {"hidden": (8, 4)}, (Task("even", "binary"),))
    >>> anatomy(model, (3,)).blocks
    ('backbone/dense_0', 'backbone/dense_1')
    """
    given = options_of(name, options)
    if head_init not in HEAD_INITS:
        raise ValueError(f'model.head_init = "{head_init}": {suggest(head_init, HEAD_INITS)}')
    factory = MODELS[name]
    if "tasks" in signature_of(factory):
        # Of a task, a backbone is told what it is, and not how its loss is weighed: that would be another backbone.
        given["tasks"] = tuple(Task(t.name, t.kind, t.num_classes, shape=t.shape) for t in tasks)
    if "rngs" in signature_of(factory):
        from mtl.models.nnx import NNX  # It takes a tenth of a second to import.

        for option, value in given.items():
            if isinstance(value, dict):
                raise ValueError(f"model.options.{option} = {value!r}: must be a number, a text or a tuple")
        backbone: Any = NNX(factory, tuple(given.items()))
    else:
        backbone = factory(**given)
        if not isinstance(backbone, nn.Module):
            raise ValueError(
                f'model.name = "{name}": gives a {type(backbone).__name__}: must give a Linen module, or take rngs and '
                "give an NNX module"
            )
    return Model(backbone, tasks, head_init, dtype, registered(tasks), "tasks" in given)  # type: ignore[arg-type]


def options_of(name: str, options: Mapping[str, Any], shape: Shape = ()) -> dict[str, Any]:
    """Return the options of the model of that name in one spelling, held against its annotations.

    Args:
      name: of the model.
      options: as a config gives them.
      shape: what one input is; how many ids it may have is what a ``vocabulary`` that is left open becomes.

    Raises:
      ValueError: as ``build``, and for a vocabulary that is smaller than the inputs'.

    >>> options_of("mlp", {"hidden": [8, 4], "dropout": 2})
    Traceback (most recent call last):
    ...
    ValueError: model.options.dropout = 2: must be a number in [0, 1)
    """
    if name not in MODELS:
        raise ValueError(f'model.name = "{name}": {suggest(name, MODELS)}')
    counts = set(vocabularies(shape))
    if len(counts) == 1 and "vocabulary" in signature_of(MODELS[name]):
        (count,) = counts
        options = {"vocabulary": count, **options}
        if isinstance(given := options["vocabulary"], int) and given < count:
            raise ValueError(f"model.options.vocabulary = {given}: must be at least {count:,}, the ids of the inputs")
    own = signature_of(MODELS[name]).get("vocabulary")
    if shape and not counts and own is not None and own.default is own.empty and "vocabulary" not in options:
        raise ValueError(
            f"model.options.vocabulary is missing: it has no default, and inputs of shape {shape} are no ids: model "
            f'"{name}" must have data whose ids are declared (vocabulary=)'
        )
    return checked(MODELS[name], options, "model.options.", f"model {name}", without=NOT_OPTIONS)
