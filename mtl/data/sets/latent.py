"""Generated tasks that share a latent subspace to a chosen degree: the truth about transfer is known here."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from mtl.data.table import Table, make_table
from mtl.tasks import Task

# Streams of the data set's own seed: each draw has its own, so that changing one option moves nothing else.
_INPUTS, _SUBSPACES, _TEACHER, _SOURCE_NOISE, _TARGET_NOISE = 1, 2, 3, 4, 5


def latent_table(
    rho: float = 1.0,
    inputs: int = 32,
    latent: int = 3,
    source_tasks: int = 8,
    examples: int = 4000,
    noise: float = 0.05,
    source_kind: Literal["binary", "regression"] = "binary",
    hidden: int = 16,
    gain: float = 2.0,
    seed: int = 0,
) -> Table:
    """Generate source tasks and a target whose teachers look at subspaces with relatedness ρ.

    Inputs are x ~ N(0, I_d). A and P, both k x d, have orthonormal rows and A Pᵀ = 0. The source tasks see
    z = A x, the target sees z' = B x with

        B = ρ A + √(1 − ρ²) P,

    so B has orthonormal rows and A Bᵀ = ρ I: every principal angle between the two subspaces is arccos ρ, and
    corr(zᵢ, z'ᵢ) = ρ. At ρ = 1 the subspaces are one; at ρ = 0 they are orthogonal and source labels are
    independent of z'. z' ~ N(0, I_k) whatever ρ is: the target alone is equally hard at every ρ, only what
    the source tells about it changes.

    All tasks read the same hidden units h(z) = tanh(W z + b), with ‖wᵢ‖ = gain and bᵢ ~ N(0, 1), each with
    its own read-out vⱼ ~ N(0, I): gⱼ = vⱼᵀ h. A binary label is [g > median of g], flipped with probability
    ``noise``; a regression label is √(1 − noise) g + √noise ε with g standardised and ε ~ N(0, 1). Medians
    and standard deviations are the table's own.

    With the defaults and 1,000 source examples, logistic regression on the hidden features of a pretrained
    64-64 perceptron beats the same network from scratch at 20, 50 and 100 target labels by 16, 10 and 10
    points of accuracy for ρ = 1, and loses by 7, 10 and 11 for ρ = 0 (scikit-learn 1.9, mean of data seeds 0
    to 7, the probe's penalty and the network's stopping chosen in hindsight; standard errors 0.5 to 1.7).

    Args:
      rho: relatedness ρ in [0, 1], the cosine of the principal angles.
      inputs: d, number of inputs; at least 2 · ``latent``, for the orthogonal subspace to fit.
      latent: k, dimension of each subspace.
      source_tasks: number of source tasks, named ``source_0``, ``source_1``, ...
      examples: N, number of rows; each has the labels of all tasks.
      noise: in [0, 0.5): probability that a binary label is flipped, or a regression label's share of noise
        in its variance.
      source_kind: kind of the source tasks; the target is always binary.
      hidden: number of hidden units of the teacher.
      gain: norm of each hidden unit's weights; the larger, the less linear the teacher.
      seed: of the *data set* (population and sample), not of a trial: tables of one seed that differ only in
        ``rho`` share inputs, teacher and noise.

    Returns:
      A table with tasks ``target``, ``source_0``, ...

    Raises:
      ValueError: for an option out of its range.

    Source: the shared linear representation of N. Tripuraneni, C. Jin and M. Jordan 2021 (arXiv:2002.11684),
    with a teacher network in place of their linear read-out.

    >>> table = latent_table(rho=0.5, examples=100)
    >>> table.x.shape, len(table.tasks), float(table.labels["target"].mean()) > 0.3
    ((100, 32), 9, True)
    """
    for field, low, value in (
        ("latent", 1, latent),
        ("inputs", 2 * latent, inputs),
        ("source_tasks", 1, source_tasks),
        ("examples", 2, examples),
        ("hidden", 1, hidden),
        ("seed", 0, seed),
    ):
        if value < low:
            why = " (2 · latent)" if field == "inputs" else ""
            raise ValueError(f'data "latent": {field} = {value}: must be at least {low}{why}')
    if not 0.0 <= rho <= 1.0:
        raise ValueError(f'data "latent": rho = {rho}: must be in [0, 1]')
    if not 0.0 <= noise < 0.5:
        raise ValueError(f'data "latent": noise = {noise}: must be in [0, 0.5)')
    if not (gain > 0.0 and math.isfinite(gain)):
        raise ValueError(f'data "latent": gain = {gain}: must be positive and finite')
    if source_kind not in ("binary", "regression"):
        raise ValueError(f'data "latent": source_kind = "{source_kind}": must be "binary" or "regression"')

    x = np.random.default_rng([_INPUTS, seed]).standard_normal((examples, inputs))
    own, shared = subspaces(rho, inputs, latent, seed)

    teacher = np.random.default_rng([_TEACHER, seed])
    weights = teacher.standard_normal((hidden, latent))
    weights *= gain / np.linalg.norm(weights, axis=1, keepdims=True)
    bias = teacher.standard_normal(hidden)
    target_readout = teacher.standard_normal(hidden)  # first, so that source_tasks cannot move it
    source_readouts = teacher.standard_normal((source_tasks, hidden))

    target = np.tanh(x @ own.T @ weights.T + bias) @ target_readout
    sources = np.tanh(x @ shared.T @ weights.T + bias) @ source_readouts.T
    names = [f"source_{j}" for j in range(source_tasks)]
    rng = np.random.default_rng([_TARGET_NOISE, seed])
    labels = {"target": _binary(target, noise, rng)}
    rng = np.random.default_rng([_SOURCE_NOISE, seed])
    for name, scores in zip(names, sources.T, strict=True):
        labels[name] = (_binary if source_kind == "binary" else _regression)(scores, noise, rng)
    tasks = [Task("target", "binary"), *(Task(name, source_kind) for name in names)]
    about = (
        f"Generated: target and {source_tasks} {source_kind} source tasks on {latent}-dimensional subspaces "
        f"of N(0, I_{inputs}) with relatedness rho = {rho}, noise = {noise}, data seed {seed}. "
        "No licence needed."
    )
    return make_table("latent", x, tasks, labels, about)


def subspaces(rho: float, inputs: int, latent: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bases (B of the target, A of the sources), each [latent, inputs] with orthonormal rows.

    Args:
      rho: relatedness ρ in [0, 1]; A Bᵀ = ρ I.
      inputs: d, number of inputs, at least 2 · ``latent``.
      latent: k, dimension of each subspace.
      seed: of the data set; A does not depend on ρ.

    >>> b, a = subspaces(0.5, 8, 2, seed=0)
    >>> bool(np.allclose(a @ b.T, 0.5 * np.eye(2))), bool(np.allclose(b @ b.T, np.eye(2)))
    (True, True)
    """
    gaussian = np.random.default_rng([_SUBSPACES, seed]).standard_normal((inputs, 2 * latent))
    q, r = np.linalg.qr(gaussian)
    q = q * np.sign(np.diag(r))  # the factorisation is unique once R's diagonal is positive
    shared, orthogonal = q.T[:latent], q.T[latent:]
    return rho * shared + math.sqrt(1.0 - rho**2) * orthogonal, shared


def _binary(scores: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    return ((scores > np.median(scores)) ^ (rng.random(len(scores)) < noise)).astype(np.float32)


def _regression(scores: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    clean = (scores - scores.mean()) / scores.std()
    return math.sqrt(1.0 - noise) * clean + math.sqrt(noise) * rng.standard_normal(len(scores))
