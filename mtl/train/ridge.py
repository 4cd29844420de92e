"""A linear head in closed form: ridge regression on features, its penalty chosen by leave-one-out or validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from mtl.inputs import Shape
from mtl.models.features import features_of
from mtl.optim import Optimizer
from mtl.params import combine
from mtl.tasks import Task
from mtl.train.dataset import Data, Pool, inputs, pool_name
from mtl.train.flops import features
from mtl.train.program import Frozen, Hypers, Program, PyTree, TrainState
from mtl.train.stacks import ordered, stacked

#: Features, targets and mask of the rows to fit to, and of others to choose by, if it is not by leave-one-out.
Cases = tuple[Array, Array, Array, tuple[Array, Array, Array] | None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fit:
    """A ridge head.

    Attributes:
      kernel: [features, outputs].
      bias: [outputs].
      penalty: the λ that was chosen.
      error: its squared error, by leave-one-out or on validation, a mean over examples, summed over outputs.
    """

    kernel: Float[Array, "features outputs"]
    bias: Float[Array, " outputs"]
    penalty: Float[Array, ""]
    error: Float[Array, ""]


def codes(task: Task, labels: Real[Array, " rows"]) -> Float[Array, "rows outputs"]:
    """Return the regression's targets: ±1 for each class, or the number itself.

    >>> codes(Task("even", "binary"), jnp.array([1.0, 0.0])).tolist()
    [[1.0], [-1.0]]
    """
    if task.labels == "ids":
        return 2.0 * jax.nn.one_hot(labels.astype(jnp.int32), task.num_classes) - 1.0
    y = labels.astype(jnp.float32)[:, None]
    return y if task.labels == "numbers" else 2.0 * y - 1.0


def fit(
    x: Float[Array, "rows features"],
    y: Float[Array, "rows outputs"],
    mask: Bool[Array, " rows"],
    penalties: Sequence[float],
    held_out: tuple[Float[Array, "more features"], Float[Array, "more outputs"], Bool[Array, " more"]] | None = None,
) -> Fit:
    """Return the ridge fit with the best of some penalties.

    With standardised features X̃ and centred targets Ỹ of the n present rows::

        W_λ = argmin_W ‖Ỹ − X̃W‖²/n + λ‖W‖² = (X̃ᵀX̃/n + λI)⁻¹ X̃ᵀỸ/n

    and the leave-one-out residual of row i is (y_i − ŷ_i)/(1 − h_ii), h_ii = 1/n + x̃_iᵀ(X̃ᵀX̃/n + λI)⁻¹x̃_i/n (the mean
    and the scale of the features are those of all rows). One eigendecomposition serves all penalties. A feature that
    is constant takes no part.

    Args:
      x: features.
      y: targets; anything where ``mask`` is false.
      mask: true where the row is there and has a label.
      penalties: the λ to choose from, above 0.
      held_out: features, targets and mask of validation rows, to choose by them instead of leave-one-out.

    >>> rng = jax.random.key(0)
    >>> x = jax.random.normal(rng, (50, 3))
    >>> found = fit(x, x[:, :1] * 2.0 + 1.0, jnp.ones(50, bool), [1e-6, 1.0])
    >>> [round(float(v), 2) + 0.0 for v in (*found.kernel[:, 0], found.bias[0])]
    [2.0, 0.0, 0.0, 1.0]

    Source: Hoerl & Kennard 1970; Golub, Heath & Wahba 1979 (leave-one-out of a linear smoother).
    """
    m = mask.astype(x.dtype)[:, None]
    x, y = jnp.where(mask[:, None], x, 0), jnp.where(mask[:, None], y, 0)
    n = jnp.maximum(m.sum(), 1.0)
    mean, level = (x.sum(axis=0) / n)[None], (y.sum(axis=0) / n)[None]
    deviation = jnp.sqrt((m * (x - mean) ** 2).sum(axis=0) / n)[None]
    moves = deviation > 1e-6 * jnp.maximum(jnp.abs(mean), 1e-30)
    scale = jnp.where(moves, 1 / jnp.where(moves, deviation, 1), 0)
    xs, ys = m * (x - mean) * scale, m * (y - level)
    values, vectors = jnp.linalg.eigh(xs.T @ xs / n)
    values = jnp.maximum(values, 0)
    turned, target = xs @ vectors, vectors.T @ (xs.T @ ys) / n

    def at(penalty: Array) -> tuple[Array, Array]:
        shrink = 1 / (values + penalty)[:, None]
        weights = vectors @ (shrink * target)
        if held_out is None:
            leverage = 1 / n + (turned**2 @ shrink) / n
            error = m * ((ys - xs @ weights) / jnp.maximum(1 - leverage, 1e-6)) ** 2
            return weights, error.sum() / n
        vx, vy, there = held_out
        seen = there.astype(x.dtype)[:, None]
        miss = jnp.where(there[:, None], vy - level - (vx - mean) * scale @ weights, 0)
        return weights, (miss**2).sum() / jnp.maximum(seen.sum(), 1)

    grid = jnp.asarray(tuple(penalties), x.dtype)
    weights, errors = jax.lax.map(at, grid)
    best = jnp.argmin(jnp.where(jnp.isfinite(errors), errors, jnp.inf))
    kernel = scale.T * weights[best]
    return Fit(kernel, level[0] - (mean @ kernel)[0], grid[best], errors[best])


@dataclasses.dataclass(frozen=True)
class Ridge:
    """The heads of a phase in closed form, on the features of a trunk that does not move.

    Attributes:
      penalties: λ to choose from.
      choose: how, ``leave_one_out`` or ``validation``.
    """

    penalties: tuple[float, ...]
    choose: str

    def begin(self, program: Program, hypers: Hypers, trainable: PyTree) -> PyTree:
        """Return the penalties that will be chosen, by task: none yet."""
        return {task: jnp.float32(jnp.nan) for task in program.tasks}

    def advance(
        self,
        program: Program,
        hypers: Hypers,
        moving: TrainState,
        fixed: Frozen,
        own: Data,
        begin: Array,
        end: Array,
        shards: int,
    ) -> TrainState:
        """Return the phase solved, if there is a step to go, see ``phase.advance``; ``own`` is the lane's split."""
        # What is read stays outside the branch: a solver that is fused with it rounds by how many splits there are. Of
        # a loop XLA would move it out, and fuse it.
        cases = self._cases(program, moving, fixed, own)
        return jax.lax.cond(begin < end, lambda: self._solve(program, moving, cases, shards), lambda: moving)

    def averages(self, optimizer: Optimizer) -> bool:
        """Return whether other parameters are evaluated than those that were found: no."""
        return False

    def reads_validation(self) -> bool:
        """Return whether it reads the inputs of validation."""
        return self.choose == "validation"

    def chosen(self, state: PyTree) -> dict[str, PyTree]:
        """Return the penalties that were chosen, by task."""
        return dict(state)

    def examples(self, program: Program, steps: int, rows: int) -> int:
        """Return how many examples it sees: each of its rows, once."""
        return rows

    def flops(self, program: Program, shape: Shape, steps: int, rows: int) -> float:
        """Return the floating-point operations of finding the heads from n rows; ``shape`` is one input's.

        Of a task: 2nF² for the Gram matrix, 9F³ for its eigendecomposition (Golub & Van Loan 2013, §8.3), and 2nF² to
        turn the features.
        """
        widths = [features_of(features(program, shape), task).shape[-1] for task in program.tasks]
        return float(sum(4 * rows * width**2 + 9 * width**3 for width in widths))

    def _cases(self, program: Program, moving: TrainState, fixed: Frozen, own: Data) -> dict[str, Cases]:
        """Return what each task's head is fitted to."""
        params = combine(moving.trainable, fixed.frozen)
        later = own.val_rows[pool_name(program.tasks)]
        cases: dict[str, Cases] = {}
        for task in program.specs:
            (at,) = own.columns([task.name])
            pool, labels = Pool(own.own_rows.rows[at], own.own_rows.count[at]), own.labels[:, at]
            seen = features_of(fixed.features, task.name)
            x = jnp.take(seen, jnp.take(fixed.place, pool.rows), axis=0, mode="clip")
            y, there = codes(task, labels[pool.rows]), jnp.arange(pool.rows.shape[0]) < pool.count
            held_out = None
            if self.choose == "validation":
                known = own.val[later.rows, at] & (jnp.arange(later.rows.shape[0]) < later.count)
                later_x = program.model.features(params, moving.state, inputs(program.standardize, own, later.rows))
                held_out = (features_of(later_x, task.name), codes(task, labels[later.rows]), known)
            cases[task.name] = (x, y, there, held_out)
        return cases

    def _solve(self, program: Program, moving: TrainState, cases: dict[str, Cases], shards: int) -> TrainState:
        """Return the phase with its heads in closed form; the loss is their squared error, held out.

        A class's target is ±1, so that the regression estimates E[±1 | x] = tanh(z/2) ≈ z/2: outputs are twice it.
        """
        heads: dict[str, PyTree] = {}
        errors, penalties = {}, {}
        for task in program.specs:
            x, y, there, held_out = cases[task.name]
            found = fit(x, y, there, self.penalties, held_out)
            factor = 1.0 if task.labels == "numbers" else 2.0
            heads[task.name] = {"bias": factor * found.bias, "kernel": factor * found.kernel}
            errors[task.name], penalties[task.name] = found.error, found.penalty
        trainable = stacked(program, {"backbone": moving.trainable["backbone"], "heads": heads})
        trainable["others"] = moving.trainable["others"]
        # Every device finds all of it, and theirs are added up.
        errors_ = jnp.stack([errors[t.name] for t in ordered(program)]) / shards
        return dataclasses.replace(
            moving, trainable=trainable, opt_state=penalties, loss_sum=errors_, labels=jnp.ones_like(moving.labels)
        )
