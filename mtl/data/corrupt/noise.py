"""Labels made wrong on purpose, at a known rate."""

from __future__ import annotations

import numpy as np

from mtl.data.counter import Counter
from mtl.tasks import KINDS, Task


def flip(
    task: Task, labels: np.ndarray, mask: np.ndarray, rate: float, seed: int, asymmetry: float = 0.0
) -> np.ndarray:
    """Return a task's labels, some of them wrong.

    A binary label is flipped with probability rate · (1 − asymmetry) if it is 0 and rate · (1 + asymmetry) if
    it is 1. A class id becomes one of the others, uniformly, with probability ``rate``. To a real label
    rate · σ · ε is added, with σ the standard deviation of the present labels and ε of mean 0 and variance 1
    (the sum of twelve uniform numbers, less 6); what falls below the least that its kind can be becomes that.
    Labels wrong at one rate are wrong in the same way at every higher rate.

    Args:
      task: what the labels are of.
      labels: [N].
      mask: [N], labels present; the others stay as they are.
      rate: in [0, 1], or at least 0 for a regression task.
      seed: decides which.
      asymmetry: in [−1, 1], for binary tasks; rate · (1 + |asymmetry|) is at most 1.

    Returns:
      [N] labels of the same dtype.

    Raises:
      ValueError: for a rate or an asymmetry out of range.

    >>> labels = np.zeros(1000, np.float32)
    >>> noisy = flip(Task("a", "binary"), labels, np.ones(1000, bool), rate=0.2, seed=0)
    >>> bool(140 < noisy.sum() < 260)
    True
    """
    if not (0.0 <= rate < np.inf) or (rate > 1.0 and task.labels != "numbers"):
        raise ValueError(
            f'task "{task.name}": rate = {rate}: must be at least 0, and at most 1 unless it is regression'
        )
    if asymmetry and task.labels != "binary":
        raise ValueError(f'task "{task.name}": asymmetry = {asymmetry}: is for binary tasks, not {task.kind}')
    if not -1.0 <= asymmetry <= 1.0 or (task.labels == "binary" and rate * (1.0 + abs(asymmetry)) > 1.0):
        raise ValueError(
            f'task "{task.name}": asymmetry = {asymmetry}: must be in [-1, 1], with rate (1 + |asymmetry|) at most 1'
        )
    draw = Counter(seed, np.arange(len(labels)))
    if task.labels == "numbers":
        epsilon = sum((draw(f"noise {i}: {task.name}") for i in range(12)), start=np.full(len(labels), -6.0))
        spread = float(labels[mask].std()) if mask.any() else 0.0
        wrong = np.maximum(labels + rate * spread * epsilon, KINDS[task.kind].least)
        return np.where(mask, wrong, labels).astype(labels.dtype)
    chance = np.where(labels == 1, rate * (1.0 + asymmetry), rate * (1.0 - asymmetry))
    wrong = mask & (draw(f"noise: {task.name}") < (chance if task.labels == "binary" else rate))
    if task.labels == "binary":
        return np.where(wrong, 1 - labels, labels).astype(labels.dtype)
    step = 1 + draw.integers(f"noise class: {task.name}", task.num_classes - 1)
    return np.where(wrong, (labels + step) % task.num_classes, labels).astype(labels.dtype)
