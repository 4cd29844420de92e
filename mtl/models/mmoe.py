"""A mixture of experts with a gate for each task."""

from __future__ import annotations

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl.models.mlp import MLP
from mtl.params import escaped
from mtl.ranges import Count, Dropout, Range
from mtl.tasks import Task


class MMoE(nn.Module):
    """Experts that all tasks share, and of each task a gate that says how much of which it takes.

    f_k(x) = Σ_i g_ki(x) e_i(x), where e_i are MLPs and g_k(x) = softmax(W_k vec(x) + b_k). Tasks that agree can share
    experts, and tasks that do not can go apart.

    Attributes:
      tasks: those that have a gate.
      experts: how many.
      hidden: width of each layer of an expert.
      dropout: of an expert's activations.

    Source: Ma et al. (2018), Modeling task relationships in multi-task learning with multi-gate mixture-of-experts.
    """

    tasks: tuple[Task, ...]
    experts: Annotated[int, Range(1, 256)] = 4
    hidden: tuple[Count, ...] = (64, 64)
    dropout: Dropout = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, batch * shape], train: bool) -> dict[str, Float[Array, "batch features"]]:
        """Return features of each task; ``train`` says whether activations are dropped."""
        x = x.reshape(x.shape[0], -1)
        each = [MLP(self.hidden, self.dropout, name=f"expert_{i}")(x, train) for i in range(self.experts)]
        known = jnp.stack(each, axis=1)
        found = {}
        for task in self.tasks:
            gate = nn.softmax(nn.Dense(self.experts, name=f"gate_{escaped(task.name, '/')}")(x))
            found[task.name] = jnp.einsum("be,bef->bf", gate, known)
        return found
