"""Figures of a sweep: the metric and the paired gain against the target's size, and learning curves.

How lines, labels and titles are drawn is in `mtl.report.drawing`. The same analysis gives the same bytes.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl.canvas import own_settings
from mtl.host.files import write_atomically
from mtl.report.analysis import DOUBLED, Analysis, Cell, Scores
from mtl.report.drawing import (
    FONT,
    GRID,
    INK,
    axis_label,
    clean,
    draw_band,
    label_ends,
    label_room,
    new_figure,
    put_title,
    short_name,
    size_axis,
    styles,
    title_points,
    write,
)
from mtl.report.phrases import column
from mtl.report.targets import Targets
from mtl.report.text import gain_unit_text, metric_text, row_text, size_text


def _columns(analysis: Analysis, regime: str, *names: str) -> list[np.ndarray]:
    cells: list[Cell | None] = [analysis.cells.get(regime, {}).get(size) for size in analysis.scores.sizes]
    unit = analysis.scores.unit
    return [
        np.array([math.nan if cell is None else getattr(cell, name) * unit for cell in cells], float) for name in names
    ]


def _baseline(scores: Scores) -> str:
    """Return what gains are over, on one line."""
    base = " ".join(scores.baseline.split())
    return f"{base} (of ×2 over {base} ×2)" if f"{scores.baseline}{DOUBLED}" in scores.doubled else base


@own_settings()
def metric_figure(analysis: Analysis, titled: bool = True) -> Any:
    """Draw the metric against the target's size, one line a regime with its 95 % band.

    Args:
      analysis: of one sweep.
      titled: whether the question stands above it; a page that states it already does not need that.

    Returns:
      A `matplotlib.figure.Figure`; missing and failed cells are gaps in the lines.
    """
    scores = analysis.scores
    width, axes_height = 8.6, 4.3
    wrap = 92
    question = scores.question if titled else ""
    above, below = title_points(question, wrap), 40.0
    height = axes_height + (above + below) / 72
    figure = new_figure(width, height)
    bottom, top = below / 72 / height, 1 - above / 72 / height
    axes = figure.add_axes((0.075, bottom, 0.925 - label_room(scores.regimes) / width, top - bottom))
    looks = styles(scores.regimes, scores.baseline, scores.controls)
    x = np.array(scores.sizes, float)
    ends: dict[str, tuple[float, float]] = {}
    for regime in scores.regimes:
        mean, low, high = _columns(analysis, regime, "mean", "low", "high")
        draw_band(axes, x, low, high, looks[regime], 0.06 if regime in scores.controls else 0.11)
        axes.plot(x, mean, label=regime, **looks[regime])
        if np.isfinite(mean).any():
            last = int(np.flatnonzero(np.isfinite(mean))[-1])
            ends[regime] = (float(x[last]), float(mean[last]))
    clean(axes)
    size_axis(axes, scores.sizes)
    axes.margins(y=0.03)
    label = metric_text(scores.metric, scores.unit)
    axes.set_ylabel(label, fontsize=FONT, color=INK, parse_math=False)
    better = "higher" if scores.higher_is_better else "lower"
    subtitle = f"{label} with 95 % bands, {len(scores.replicates)} replicates; {better} is better"
    put_title(figure, question, subtitle, 0.012, wrap)
    label_ends(axes, ends, looks, axes_height * 72)
    return figure


@own_settings()
def gain_figure(analysis: Analysis, titled: bool = True) -> Any:
    """Draw each regime's paired gain over the baseline, one panel a regime, the equivalence region shaded.

    Filled markers are gains or harms that survive Holm's correction; hollow ones are not.

    Args:
      analysis: of one sweep.
      titled: whether the question stands above it; a page that states it already does not need that.

    Returns:
      A `matplotlib.figure.Figure`.
    """
    scores = analysis.scores
    regimes = [regime for regime in scores.regimes if regime != scores.baseline]
    looks = styles(scores.regimes, scores.baseline, scores.controls)
    columns = min(4, max(1, len(regimes)))
    rows = max(1, -(-len(regimes) // columns))
    width, wrap = 8.6, 92
    question = scores.question if titled else ""
    above, below = title_points(question, wrap), 40.0
    height = rows * 1.85 + (above + below) / 72
    figure = new_figure(width, height)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(0.075, below / 72 / height, 0.985, 1 - (above + 16) / 72 / height, 0.1, 0.24)
    x = np.array(scores.sizes, float)
    margin = scores.margin * scores.unit
    for i, axes in enumerate(panels.flat):
        if i >= len(regimes):
            axes.set_visible(False)
            continue
        regime = regimes[i]
        look = looks[regime]
        gain, low, high = _columns(analysis, regime, "gain", "gain_low", "gain_high")
        cells = [analysis.cells.get(regime, {}).get(size) for size in scores.sizes]
        sure = np.array([cell is not None and cell.claim in ("gain", "harm") for cell in cells])
        axes.axhspan(-margin, margin, color=GRID, alpha=0.2, linewidth=0, zorder=0)
        axes.axhline(0, color=INK, linewidth=1.0, zorder=1)
        axes.vlines(x, low, high, color=look["color"], linewidth=1.6, zorder=3)
        axes.plot(x, gain, color=look["color"], linewidth=0.9, alpha=0.6, zorder=2, label=regime)
        dots = {
            "linestyle": "",
            "marker": "o",
            "markersize": 4.8,
            "markeredgecolor": look["color"],
            "zorder": 4,
        }
        axes.plot(x[sure], gain[sure], markerfacecolor=look["color"], **dots)
        axes.plot(x[~sure], gain[~sure], markerfacecolor="white", **dots)
        clean(axes)
        size_axis(axes, scores.sizes, label=False)
        axes.tick_params(axis="x", labelsize=FONT - 1.5)
        title = axes.set_title(
            short_name(row_text(regime), 22), fontsize=FONT, color=INK, loc="left", pad=4, parse_math=False
        )
        title.set_fontweight("bold")
        if i + columns >= len(regimes):  # nothing below it
            axes.tick_params(axis="x", labelbottom=True)
    figure.text(0.53, 6 / 72 / height, axis_label(scores.sizes), fontsize=FONT, color=INK, ha="center")
    points = gain_unit_text(scores.metric, scores.unit)
    label = f"gain over {_baseline(scores)} in {points}"
    shaded = f"shaded: equivalent (± {margin:g}); filled: significant after Holm"
    put_title(figure, question, f"{label}, paired, with 95 % intervals; {shaded}", 0.012, wrap)
    return figure


#: A figure has room for so many targets.
_TARGETS = 40


@own_settings()
def forest_figure(targets: Targets, titled: bool = True) -> Any:
    """Draw each target's gain over the baseline with its 95 % interval, a panel a regime, and their mean below.

    Args:
      targets: of one sweep; of several sizes the middle one is shown, and of many targets the first 40.
      titled: whether the question stands above it.

    Returns:
      A `matplotlib.figure.Figure`.
    """
    scores, names = targets.scores, list(targets.of)[:_TARGETS]
    size = scores.sizes[len(scores.sizes) // 2]
    regimes = [regime for regime in scores.regimes if regime != scores.baseline]
    looks = styles(scores.regimes, scores.baseline, scores.controls)
    columns = min(4, max(1, len(regimes)))
    rows = max(1, -(-len(regimes) // columns))
    width, wrap = 8.6, 92
    question = scores.question if titled else ""
    above, below, each = title_points(question, wrap), 34.0, 15.0 * (len(names) + 2) + 24
    height = (rows * each + above + below) / 72
    figure = new_figure(width, height)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    left = label_room([*names, "mean"]) / width
    figure.subplots_adjust(left, below / 72 / height, 0.985, 1 - (above + 16) / 72 / height, 0.08, 24 / (each - 24))
    y = np.array([*range(len(names)), len(names) + 0.4])  # The mean stands a little apart.
    for axes, regime in itertools.zip_longest(panels.flat, regimes):
        if regime is None:
            axes.set_visible(False)
            continue
        mean, color = targets.means[regime][size], looks[regime]["color"]
        cells = [(targets.of[name].cells[regime][size], targets.of[name].scores.unit) for name in names]
        drawn = [(c.gain * unit, c.gain_low * unit, c.gain_high * unit) for c, unit in cells]
        drawn.append((mean.gain * scores.unit, mean.gain_low * scores.unit, mean.gain_high * scores.unit))
        gain, low, high = np.array(drawn, float).T
        sure = np.array([*(c.claim in ("gain", "harm") for c, _ in cells), False])
        axes.axvline(0, color=INK, linewidth=1.0, zorder=1)
        axes.hlines(y, low, high, color=color, linewidth=1.6, zorder=3)
        dots = {"linestyle": "", "markersize": 4.8, "markeredgecolor": color, "zorder": 4}
        axes.plot(gain[sure], y[sure], marker="o", markerfacecolor=color, **dots)
        axes.plot(gain[:-1][~sure[:-1]], y[:-1][~sure[:-1]], marker="o", markerfacecolor="white", **dots)
        axes.plot(gain[-1:], y[-1:], marker="D", markerfacecolor="white", **dots)
        clean(axes)
        axes.set_ylim(y[-1] + 0.7, -0.7)
        axes.set_yticks(y, [*(short_name(name) for name in names), "mean"], parse_math=False)
        title = axes.set_title(
            short_name(row_text(regime), 22), fontsize=FONT, color=INK, loc="left", pad=4, parse_math=False
        )
        title.set_fontweight("bold")
    points = " or ".join(dict.fromkeys(gain_unit_text(a.scores.metric, a.scores.unit) for a in targets.of.values()))
    label = f"gain over {_baseline(scores)} in {points} at {column(scores.sizes)} = {size_text(size)}"
    put_title(figure, question, f"{label}, 95 % intervals; filled: significant after Holm", 0.012, wrap)
    return figure


@own_settings()
def curves_figure(
    curves: Mapping[str, Any],
    steps: Mapping[str, Any] | None = None,
    *,
    title: str,
    ylabel: str,
    xlabel: str = "step",
    baseline: str = "",
    controls: Iterable[str] = (),
    log: bool = False,
) -> Any:
    """Draw learning curves, one line a regime, with 95 % t intervals over replicates.

    Args:
      curves: by regime, values [steps] of one replicate or [replicates, steps]; non-finite is left out.
      steps: by regime, the steps at which they were taken, [steps]; without it 1, 2, 3, ….
      title: what the figure asks or shows.
      ylabel: what was measured.
      xlabel: what the steps are.
      baseline: the regime drawn dark and thick.
      controls: regimes drawn dashed and grey.
      log: whether the values go on a log axis.

    Returns:
      A `matplotlib.figure.Figure`.

    Raises:
      ValueError: a curve has more than two axes, or another length than its steps.
    """
    from scipy.special import stdtrit

    width, axes_height, wrap = 8.6, 3.8, 92
    above, below = title_points(title, wrap), 40.0
    height = axes_height + (above + below) / 72
    figure = new_figure(width, height)
    bottom, top = below / 72 / height, 1 - above / 72 / height
    axes = figure.add_axes((0.085, bottom, 0.915 - label_room(curves) / width, top - bottom))
    looks = {name: look | {"marker": ""} for name, look in styles(list(curves), baseline, controls).items()}
    ends: dict[str, tuple[float, float]] = {}
    most = 0
    for regime, raw in curves.items():
        values = np.asarray(raw, float)
        values = values[None] if values.ndim == 1 else values
        if values.ndim != 2:
            raise ValueError(f"curves[{regime!r}] has {values.ndim} axes; one (steps) or two (replicates, steps)")
        x = np.arange(1, values.shape[1] + 1, dtype=float)
        if steps is not None and regime in steps:
            x = np.asarray(steps[regime], float)
        if x.shape != values.shape[1:]:
            raise ValueError(f"steps[{regime!r}] has shape {x.shape}; the curve has {values.shape[1]} values")
        known = np.isfinite(values)
        count = known.sum(axis=0)
        most = max(most, int(count.max(initial=0)))
        safe = np.where(known, values, 0.0)
        mean = np.where(count > 0, safe.sum(axis=0) / np.maximum(count, 1), np.nan)
        spread = np.where(known, values - mean, 0.0)
        error = np.sqrt((spread**2).sum(axis=0) / np.maximum(count - 1, 1) / np.maximum(count, 1))
        half = np.where(count > 1, stdtrit(np.maximum(count - 1, 1), 0.975) * error, np.nan)
        look = looks[regime]
        low, high = mean - half, mean + half
        if log:  # a band that reaches zero has no place on a log axis
            low = np.where(low > 0, low, np.minimum(mean, high) * 0.5)
        axes.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0, zorder=1)
        axes.plot(x, mean, label=regime, **look)
        if np.isfinite(mean).any():
            last = int(np.flatnonzero(np.isfinite(mean))[-1])
            ends[regime] = (float(x[last]), float(mean[last]))
    clean(axes)
    axes.margins(x=0.01, y=0.04)
    axes.set_xlabel(xlabel, fontsize=FONT, color=INK, parse_math=False)
    axes.set_ylabel(ylabel, fontsize=FONT, color=INK, parse_math=False)
    bands = f"mean of up to {most} replicates with 95 % t intervals" if most > 1 else "one replicate"
    put_title(figure, title, bands, 0.012, wrap)
    if log:
        axes.set_yscale("log")
    label_ends(axes, ends, looks, axes_height * 72)
    return figure


def save(figure: Any, path: str | Path) -> list[Path]:
    """Write a figure as PNG and as SVG; the same figure gives the same bytes.

    Args:
      figure: from this module.
      path: where, without an ending or with ``.png`` or ``.svg`` (then only that one is written).

    Returns:
      The files written.
    """
    path = Path(path)
    kinds = [path.suffix[1:]] if path.suffix in (".png", ".svg") else ["png", "svg"]
    path.parent.mkdir(parents=True, exist_ok=True)
    files = []
    for kind in kinds:
        file = path if path.suffix == f".{kind}" else path.with_name(f"{path.name}.{kind}")
        drawn = io.BytesIO()
        write(figure, drawn, kind)
        write_atomically(file, drawn.getvalue(), durable=False)
        files.append(file)
    return files
