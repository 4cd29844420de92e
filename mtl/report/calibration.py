"""Whether probabilities can be believed: reliability diagrams of chosen trials, from the predictions that they kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtl.canvas import own_settings
from mtl.report.analysis import Analysis
from mtl.report.curves import targets_shown
from mtl.report.drawing import FONT, INK, SOFT, clean, new_figure, panel_title, put_title, styles, title_points
from mtl.report.phrases import column, join
from mtl.report.picked import Picked
from mtl.report.targets import Targets
from mtl.report.text import size_text

#: Bins of predicted probability, of equal width, and the fewest predictions that a bin is drawn of.
BINS, LEAST = 10, 20


class Reliability(NamedTuple):
    """A reliability diagram.

    Attributes:
      predicted: mean predicted probability of each bin that has predictions.
      observed: how often it was so.
      predictions: how many are in the bin.
      error: expected calibration error, Σ predictions · |observed − predicted| / Σ predictions.
    """

    predicted: np.ndarray
    observed: np.ndarray
    predictions: np.ndarray
    error: float


def reliability(probability: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Compare predicted probabilities with how often what they are of was so, in bins of equal width.

    Args:
      probability: [N] in [0, 1]: of class 1 of a binary task, of the predicted class of a multiclass one.
      right: [N], whether it was so.
      bins: over [0, 1].

    Returns:
      The diagram, and the expected calibration error over these bins.

    >>> reliability(np.array([0.25, 0.25, 0.75, 0.75]), np.array([0, 1, 1, 1])).error
    0.25

    Source: Niculescu-Mizil and Caruana, 2005; Guo et al., 2017, arXiv:1706.04599.
    """
    at = np.minimum((probability * bins).astype(int), bins - 1)
    count = np.bincount(at, minlength=bins)
    there = count > 0
    mean = [np.bincount(at, weights=w, minlength=bins)[there] / count[there] for w in (probability, right)]
    error = float(np.sum(count[there] * np.abs(mean[1] - mean[0])) / max(1, len(at)))
    return Reliability(mean[0], mean[1], count[there], error)


def probabilities(outputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each present label's predicted probability, and whether what it is of was so.

    Args:
      outputs: logits [N, 1] of a binary task, or [N, classes].
      labels: [N]; NaN or −1 where missing.
    """
    there = np.isfinite(labels) & (labels >= 0)
    logits, labels = outputs[there].astype(np.float64), labels[there]
    if logits.shape[-1] == 1:
        return 1 / (1 + np.exp(-np.clip(logits[:, 0], -700, 700))), (labels == 1).astype(float)
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (likely / likely.sum(axis=1, keepdims=True)).max(axis=1), (logits.argmax(axis=1) == labels).astype(float)


def calibration(
    predictions: Callable[[str, str], Mapping[str, np.ndarray]],
    analysis: Analysis | Targets,
    trials: Sequence[Picked],
) -> Any | None:
    """Return the figure of how calibrated a sweep's regimes are at the fewest and the most labels.

    Args:
      predictions: what was kept of a trial, by its hash, and a task: ``outputs`` and ``labels``.
      analysis: of the sweep.
      trials: its chosen trials, whose kept predictions are pooled over replicates (and targets).

    Returns:
      A figure; nothing if the target's labels are no classes.
    """
    scores, targets = analysis.scores, targets_shown(analysis)
    sizes = list(dict.fromkeys((scores.sizes[0], scores.sizes[-1])))
    found: dict[str, dict[float, list[tuple[np.ndarray, np.ndarray]]]] = {
        row: {} for row in scores.regimes if row not in scores.doubled
    }
    for trial in trials:
        kinds = {task["name"]: task["kind"] for task in trial.result["config"]["tasks"]}
        for task in targets if trial.size in sizes and trial.row in found else ():
            if kinds.get(task) in ("binary", "multiclass") and task in trial.result.get("test", {}):
                arrays = predictions(trial.digest, task)
                pair = probabilities(np.asarray(arrays["outputs"]), np.asarray(arrays["labels"]))
                found[trial.row].setdefault(trial.size, []).append(pair)
    drawn = {
        row: {f"{column(scores.sizes)} = {size_text(size)}": _pooled(pairs) for size, pairs in sorted(by_size.items())}
        for row, by_size in found.items()
        if by_size
    }
    if not drawn:
        return None
    of = targets[0] if len(targets) == 1 else f"{len(targets)} targets together"
    told = (
        f"{of}: how often it was so against the probability predicted, {BINS} bins, all replicates; "
        "ECE: expected calibration error"
    )
    return calibration_figure(drawn, told, scores.baseline, scores.controls)


def _pooled(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Reliability:
    return reliability(np.concatenate([p for p, _ in pairs]), np.concatenate([right for _, right in pairs]))


@own_settings()
def calibration_figure(
    regimes: Mapping[str, Mapping[str, Reliability]], told: str, baseline: str = "", controls: Sequence[str] = ()
) -> Any:
    """Draw reliability diagrams, a panel a regime, a line a size.

    Args:
      regimes: by name, by what a line is of.
      told: what the lines are.
      baseline: the regime drawn dark.
      controls: regimes drawn grey.

    Returns:
      A `matplotlib.figure.Figure`.
    """
    looks = styles(list(regimes), baseline, controls)
    across = min(5, len(regimes))
    rows = -(-len(regimes) // across)
    above, below, each = title_points("", 92), 34.0, 142.0
    width, height = 8.6, (rows * each + above + below) / 72
    figure = new_figure(width, height)
    grid = figure.subplots(rows, across, sharex=True, sharey=True, squeeze=False)
    top = 1 - (above + 16) / 72 / height
    figure.subplots_adjust(0.07, below / 72 / height, 0.985, top, 0.12, 26 / (each - 26))
    for axes, (name, lines) in zip(grid.flat, regimes.items(), strict=False):
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=":", label="_calibrated")
        for i, (head, found) in enumerate(lines.items()):
            enough = found.predictions >= LEAST
            put = {"linestyle": "-" if i else "--", "marker": "o", "markersize": 3.2, "linewidth": 1.3}
            face = looks[name]["color"] if i else "white"
            put |= {"color": looks[name]["color"], "markerfacecolor": face}
            axes.plot(found.predicted[enough], found.observed[enough], label=f"{head}, {found.error:.3f}", **put)
            says = f"{head}: ECE {found.error:.3f}"
            axes.text(0.97, 0.03 + 0.1 * (len(lines) - 1 - i), says, transform=axes.transAxes, ha="right",
                      fontsize=FONT - 2, color=INK, parse_math=False)  # fmt: skip
        clean(axes)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        panel_title(axes, name)
    for axes in grid.flat[len(regimes) :]:
        axes.set_visible(False)
    for axes in grid.flat[max(0, len(regimes) - across) : len(regimes)]:
        axes.tick_params(axis="x", labelbottom=True)
    figure.text(0.53, 6 / 72 / height, "predicted probability", fontsize=FONT, color=INK, ha="center")
    sizes = list(dict.fromkeys(head for lines in regimes.values() for head in lines))
    dashes = join([f"{'solid' if i else 'dashed'}: {head}" for i, head in enumerate(sizes)]) if len(sizes) > 1 else ""
    put_title(figure, "", f"{told}{'; ' * bool(dashes)}{dashes}", 0.012, 92)
    return figure
