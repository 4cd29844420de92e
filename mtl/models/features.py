"""Features: what a backbone makes of inputs and heads read, one array for all tasks or one for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

#: [batch, features]; of a dense task [batch, *shape, features].
Features = Float[Array, "batch ..."] | Mapping[str, Float[Array, "batch ..."]]


def features_of(features: Any, task: str) -> Any:
    """Return a task's features, which may be those of all tasks; or their shape.

    Raises:
      ValueError: if there are none of it.
    """
    if not isinstance(features, Mapping):
        return features
    if task not in features:
        raise ValueError(f"model: features of {', '.join(features)}, and none of {task}: must be of every task")
    return features[task]
