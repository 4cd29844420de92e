"""Learning curves: the loss of training and of validation over the steps that see the target, a panel a size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtl.canvas import own_settings
from mtl.report.analysis import Analysis
from mtl.report.drawing import (
    FONT,
    INK,
    clean,
    limits,
    new_figure,
    put_title,
    short_name,
    styles,
    title_points,
)
from mtl.report.phrases import column
from mtl.report.picked import Picked
from mtl.report.targets import Targets
from mtl.report.text import row_text, size_text

#: Curves are means over at most so many targets.
MOST_TARGETS = 12


class Curve(NamedTuple):
    """A regime's losses at one size.

    Attributes:
      steps: [evaluations].
      validation: [replicates, evaluations]; NaN where training diverged.
      training: likewise, of the labels drawn since the evaluation before.
    """

    steps: Any
    validation: Any
    training: Any


def targets_shown(analysis: Analysis | Targets) -> list[str]:
    """Return the targets that curves are means over: at most ``MOST_TARGETS``, all of the first one's metric."""
    if isinstance(analysis, Analysis):
        return [analysis.scores.task]
    metric = analysis.scores.metric
    return [task for task, a in analysis.of.items() if a.scores.metric == metric][:MOST_TARGETS]


def curves_of(trials: Iterable[Picked], targets: Sequence[str]) -> dict[float, dict[str, Curve]]:
    """Return the curves of chosen trials, over all their phases that see the targets.

    Where a phase stopped early, its curves go on with the state that it kept. With several targets a curve is the mean
    over them.

    Args:
      trials: chosen ones.
      targets: see ``targets_shown``.

    Returns:
      By size, by row.
    """
    cells: dict[float, dict[str, dict[str, list[list[Mapping[str, Any]]]]]] = {}
    for trial in trials:
        for task in [trial.target] if trial.target else targets:
            seen = [p for p in trial.result["phases"] if any(v is not None for v in p["val_loss"].get(task, ()))]
            if task in targets and sum(len(p["evaluated_at"]) for p in seen) > 1:
                cells.setdefault(trial.size, {}).setdefault(trial.row, {}).setdefault(task, []).append(seen)
    return {
        size: {row: made for row, by_task in rows.items() if (made := _mean_over(by_task)) is not None}
        for size, rows in sorted(cells.items())
    }


def _mean_over(by_task: Mapping[str, list[list[Mapping[str, Any]]]]) -> Curve | None:
    """Return the curve of one cell from its trials' phases, by task."""
    each = [_curve(task, trials) for task, trials in by_task.items()]
    first = each[0]
    same = [c for c in each if np.array_equal(c.steps, first.steps) and c.validation.shape == first.validation.shape]
    if len(same) < len(each):  # Their networks were validated at other steps: no mean is of one time.
        return None
    return Curve(first.steps, *(np.mean([getattr(c, k) for c in each], axis=0) for k in ("validation", "training")))


def _curve(task: str, trials: list[list[Mapping[str, Any]]]) -> Curve:
    """Return a task's curves over the phases of some replicates."""
    steps: list[float] = []
    before, parts = 0, []
    for phases in zip(*trials, strict=True):  # Of one phase, each replicate's.
        ends = max((p["evaluated_at"] for p in phases), key=len)
        steps += [before + end for end in ends]
        before += phases[0]["most_steps"]
        parts.append([[_carried(p, name, task, len(ends)) for p in phases] for name in ("val_loss", "train_loss")])
    validation, training = (np.concatenate([part[i] for part in parts], axis=1) for i in range(2))
    for values in (validation, training):  # What was no number had diverged: a mean over the others would hide it.
        values[:, ~np.isfinite(values).all(axis=0)] = np.nan
    return Curve(np.asarray(steps, np.float64), validation, training)


def _carried(phase: Mapping[str, Any], name: str, task: str, length: int) -> np.ndarray:
    """Return a phase's curve; from where it stopped early on, the loss of the state that it kept."""
    known = phase[name].get(task) or [None] * len(phase["evaluated_at"])
    curve = np.asarray(known, np.float64)  # None is NaN.
    kept = curve[phase["evaluated_at"].index(phase["best_at"])]
    return np.concatenate([curve, np.full(length - len(curve), kept)])


def learning_curves(analysis: Analysis | Targets, trials: Iterable[Picked]) -> Any | None:
    """Return the figure of a sweep's learning curves; nothing if no chosen trial has one.

    Args:
      analysis: of the sweep.
      trials: its chosen trials.
    """
    scores, targets = analysis.scores, targets_shown(analysis)
    found = curves_of((t for t in trials if t.row not in scores.doubled), targets)
    panels = {f"{column(scores.sizes)} = {size_text(size)}": curves for size, curves in found.items() if curves}
    if not panels:
        return None
    whole = len(analysis.of) if isinstance(analysis, Targets) else 1
    of = f"of {targets[0]}"
    if len(targets) > 1:
        of = (
            f"mean over all {whole} targets"
            if len(targets) == whole
            else f"mean over {len(targets)} of {whole} targets"
        )
    lines = "solid: validation, dashed: training; after an early stop, of the best state"
    return curves_figure(
        panels,
        title="",
        told=f"loss {of}; mean over replicates; {lines}",
        xlabel="steps that see the target's labels",
        ylabel="loss",
        baseline=scores.baseline,
        controls=scores.controls,
    )


@own_settings()
def curves_figure(
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    title: str,
    told: str,
    xlabel: str = "step",
    ylabel: str = "loss",
    baseline: str = "",
    controls: Iterable[str] = (),
) -> Any:
    """Draw learning curves in small panels: validation solid, training dashed, means over replicates.

    Args:
      panels: by what stands above each, the curves by regime.
      title: what the figure asks or shows; may be empty.
      told: what the lines are.
      xlabel: what the steps are.
      ylabel: what was measured.
      baseline: the regime drawn dark and thick.
      controls: regimes drawn grey.

    Returns:
      A `matplotlib.figure.Figure`.

    Raises:
      ValueError: a curve's values are not [replicates, steps].
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    looks = styles(names, baseline, controls)
    across = min(3, max(1, len(panels)))
    rows, keys = max(1, -(-len(panels) // across)), -(-len(names) // 4)
    above, below, each = title_points(title, 92), 42.0 + 16 * keys, 150.0 if len(panels) > 1 else 240.0
    width, height = 8.6, (rows * each + above + below) / 72
    figure = new_figure(width, height)
    grid = figure.subplots(rows, across, sharex=False, sharey=True, squeeze=False)
    top = 1 - (above + 14) / 72 / height
    figure.subplots_adjust(0.075, below / 72 / height, 0.985, top, 0.09, 40 / (each - 40))
    drawn = []
    for axes, (head, curves) in zip(grid.flat, panels.items(), strict=False):
        for name, curve in curves.items():
            color, wide = looks[name]["color"], 2.2 if name == baseline else 1.4
            for values, line, alpha in ((curve.training, "--", 0.6), (curve.validation, "-", 1.0)):
                mean = _mean(name, curve.steps, values)
                label = name if line == "-" else f"_{name}"
                axes.plot(curve.steps, mean, color=color, linestyle=line, linewidth=wide, alpha=alpha, label=label)
                drawn.append(mean)
        clean(axes)
        axes.tick_params(labelsize=FONT - 1)
        axes.margins(x=0.02)
        put = {"fontsize": FONT, "color": INK, "loc": "left", "pad": 4, "parse_math": False, "fontweight": "bold"}
        axes.set_title(head, **put)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    known = np.concatenate([*(d[np.isfinite(d)] for d in drawn), np.zeros(0)])
    if len(known) and known.min() > 0:  # Losses fall by orders of magnitude.
        validated = [float(v.min()) for d in drawn[1::2] if len(v := d[np.isfinite(d)])]
        least = min(validated, default=float(known.min()))  # Training's may fall far below, which says little.
        for axes in grid.flat:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        grid.flat[0].set_ylim(max(float(known.min()), least / 5) / 1.2, 1.2 * float(known.max()))
    else:
        limits(grid.flat[0], *drawn)
    figure.text(0.53, (below - 30) / 72 / height, xlabel, fontsize=FONT, color=INK, ha="center", parse_math=False)
    figure.text(0.008, 0.5, ylabel, fontsize=FONT, color=INK, va="center", rotation=90, parse_math=False)
    lines = [Line2D([], [], color=looks[name]["color"], linewidth=2.4, label=_key(name)) for name in names]
    if lines:
        legend = figure.legend(
            handles=lines, loc="lower center", ncols=4, frameon=False, fontsize=FONT, labelcolor=INK, borderaxespad=0.1
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    put_title(figure, title, told, 0.012, 92)
    return figure


def _key(name: str) -> str:
    """Return what a legend calls a regime: a name that begins with an underscore would not be shown."""
    short = short_name(row_text(name))
    return f"\u200b{short}" if short.startswith("_") else short


def _mean(name: str, steps: Any, values: Any) -> np.ndarray:
    """Return the mean over replicates, NaN where one is not finite."""
    values = np.asarray(values, float)
    if values.ndim != 2 or values.shape[1:] != np.shape(steps):
        raise ValueError(
            f"curve {name!r}: shape {values.shape} at {np.size(steps)} steps; it should be (replicates, steps)"
        )
    mean = values.mean(axis=0)
    return np.where(np.isfinite(mean), mean, np.nan)
