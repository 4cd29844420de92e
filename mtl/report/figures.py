"""Figures of a sweep of one target: the metric and the paired gain, against the target's size or at its only one.

How lines, labels and titles are drawn is in `mtl.report.drawing`. The same analysis gives the same bytes.
"""

from __future__ import annotations

import io
import itertools
import math
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
    SOFT,
    axis_label,
    clean,
    dodge,
    draw_rows,
    label_ends,
    label_room,
    limits,
    new_figure,
    panel_title,
    put_title,
    short_name,
    size_axis,
    styles,
    title_points,
    write,
)
from mtl.report.phrases import column
from mtl.report.text import gain_unit_text, metric_text, row_text, size_text


def _columns(analysis: Analysis, regime: str, *names: str) -> list[np.ndarray]:
    cells: list[Cell | None] = [analysis.cells.get(regime, {}).get(size) for size in analysis.scores.sizes]
    unit = analysis.scores.unit
    return [
        np.array([math.nan if cell is None else getattr(cell, name) * unit for cell in cells], float) for name in names
    ]


def baseline_text(scores: Scores) -> str:
    """Return what gains are over, on one line."""
    base = " ".join(scores.baseline.split())
    return f"{base} (of ×2 over {base} ×2)" if f"{scores.baseline}{DOUBLED}" in scores.doubled else base


@own_settings()
def metric_figure(analysis: Analysis, titled: bool = True) -> Any:
    """Draw the metric against the target's size, one line a regime with its 95 % intervals; of one size, a row each.

    Lines stand a few points beside each other, so that no interval covers another.

    Args:
      analysis: of one sweep.
      titled: whether the question stands above it; a page that states it already does not need that.

    Returns:
      A `matplotlib.figure.Figure`; missing and failed cells are gaps in the lines.
    """
    scores = analysis.scores
    label = metric_text(scores.metric, scores.unit)
    better = "higher" if scores.higher_is_better else "lower"
    of = f"{len(scores.replicates)} replicates; {better} is better"
    if len(scores.sizes) == 1:
        told = f"{label} at {_at(scores)} with 95 % intervals, {of}"
        return _rows_figure(analysis, list(scores.regimes), ("mean", "low", "high"), told, titled)
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
    clean(axes)
    size_axis(axes, scores.sizes)
    drawn = {regime: _columns(analysis, regime, "mean", "low", "high") for regime in scores.regimes}
    limits(axes, *itertools.chain(*drawn.values()))
    beside = dodge(axes, scores.regimes, scores.sizes)
    ends: dict[str, tuple[float, float]] = {}
    for regime, (mean, low, high) in drawn.items():
        look = looks[regime]
        put = {"color": look["color"], "transform": beside[regime], "zorder": look["zorder"]}
        axes.vlines(x, low, high, linewidth=1.3, alpha=0.55, **put)
        axes.plot(x, mean, label=regime, transform=beside[regime], **look)
        if np.isfinite(mean).any():
            last = int(np.flatnonzero(np.isfinite(mean))[-1])
            ends[regime] = (float(x[last]), float(mean[last]))
    axes.set_ylabel(label, fontsize=FONT, color=INK, parse_math=False)
    put_title(figure, question, f"{label} with 95 % intervals, {of}", 0.012, wrap)
    label_ends(axes, ends, looks, axes_height * 72)
    return figure


@own_settings()
def gain_figure(analysis: Analysis, titled: bool = True) -> Any:
    """Draw each regime's paired gain over the baseline, one panel a regime, the equivalence region shaded.

    Filled markers are gains or harms that survive Holm's correction; hollow ones are not. Of one size, a row a regime.

    Args:
      analysis: of one sweep.
      titled: whether the question stands above it; a page that states it already does not need that.

    Returns:
      A `matplotlib.figure.Figure`.
    """
    scores = analysis.scores
    regimes = [regime for regime in scores.regimes if regime != scores.baseline]
    label = f"gain over {baseline_text(scores)} in {gain_unit_text(scores.metric, scores.unit)}"
    margin = scores.margin * scores.unit
    shaded = f"shaded: equivalent (± {margin:g}); filled: significant after Holm"
    if len(scores.sizes) == 1:
        told = f"{label} at {_at(scores)}, paired, with 95 % intervals; {shaded}"
        return _rows_figure(analysis, regimes, ("gain", "gain_low", "gain_high"), told, titled)
    looks = styles(scores.regimes, scores.baseline, scores.controls)
    rows = max(1, -(-len(regimes) // 4))
    columns = max(1, -(-len(regimes) // rows))
    width, wrap = 8.6, 92
    question = scores.question if titled else ""
    above, below = title_points(question, wrap), 40.0
    height = rows * 1.85 + (above + below) / 72
    figure = new_figure(width, height)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    contenders = [regime for regime in regimes if regime not in scores.controls] or regimes
    drawn = {regime: _columns(analysis, regime, "gain", "gain_low", "gain_high") for regime in regimes}
    shared = [margin, -margin, *itertools.chain(*(drawn[regime] for regime in contenders))]
    figure.subplots_adjust(0.075, below / 72 / height, 0.985, 1 - (above + 16) / 72 / height, 0.16, 0.24)
    x = np.array(scores.sizes, float)
    own = False
    for i, axes in enumerate(panels.flat):
        if i >= len(regimes):
            axes.set_visible(False)
            continue
        regime = regimes[i]
        look = looks[regime]
        gain, low, high = drawn[regime]
        sure = _sure(analysis, regime)
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
        panel_title(axes, regime)
        limits(axes, *shared)
        bottom, top = axes.get_ylim()
        beside, own = own, bool((low < bottom).any() or (high > top).any())
        if own:  # A control that is far off must not flatten all others.
            limits(axes, low, high, [0.0])
        axes.tick_params(axis="y", labelleft=own or beside or i % columns == 0, labelsize=FONT - own)
        if not np.isfinite(gain).any():
            axes.text(0.5, 0.2, "no result", transform=axes.transAxes, ha="center", fontsize=FONT, color=SOFT)
        if i + columns >= len(regimes):  # nothing below it
            axes.tick_params(axis="x", labelbottom=True)
    figure.text(0.53, 6 / 72 / height, axis_label(scores.sizes), fontsize=FONT, color=INK, ha="center")
    put_title(figure, question, f"{label}, paired, with 95 % intervals; {shaded}", 0.012, wrap)
    return figure


def _at(scores: Scores) -> str:
    return f"{column(scores.sizes)} = {size_text(scores.sizes[0])}"


def _sure(analysis: Analysis, regime: str) -> np.ndarray:
    """Return at which sizes a gain or harm is shown."""
    cells = [analysis.cells.get(regime, {}).get(size) for size in analysis.scores.sizes]
    return np.array([cell is not None and cell.claim in ("gain", "harm") for cell in cells])


def _rows_figure(
    analysis: Analysis, regimes: list[str], fields: tuple[str, str, str], subtitle: str, titled: bool
) -> Any:
    """Draw a number of each regime at the only size, a row each, in the order of the table."""
    scores, width, wrap, gains = analysis.scores, 8.6, 92, fields[0] == "gain"
    question = scores.question if titled else ""
    above, below, each = title_points(question, wrap), 24.0, 19.0
    height = max(1.95, (each * (len(regimes) + 0.4) + above + below) / 72)  # A strip of one row could not be read.
    figure = new_figure(width, height)
    left = label_room(regimes) / width
    axes = figure.add_axes((left, below / 72 / height, 0.975 - left, 1 - (above + below) / 72 / height))
    looks = styles(scores.regimes, scores.baseline, scores.controls)
    values = np.array([np.ravel(_columns(analysis, regime, *fields)) for regime in regimes]).reshape(-1, 3)
    filled = np.array([not gains or bool(_sure(analysis, regime)[0]) for regime in regimes])
    y = np.arange(len(regimes), dtype=float)
    draw_rows(axes, y, values, [looks[regime]["color"] for regime in regimes], filled)
    mean, low, high = (float(v[0]) for v in _columns(analysis, scores.baseline, "mean", "low", "high"))
    margin = scores.margin * scores.unit
    if gains:
        mean, low, high = 0.0, -margin, margin
    if math.isfinite(low) and math.isfinite(high):  # What others are compared with stands behind them all.
        axes.axvspan(low, high, color=GRID, alpha=0.2, linewidth=0, zorder=0)
    if math.isfinite(mean):
        axes.axvline(mean, color=INK, linewidth=1.0, zorder=1)
    names = [short_name(row_text(regime)) for regime in regimes]
    axes.set_yticks(y, names, parse_math=False)
    for regime, tick in zip(regimes, axes.get_yticklabels(), strict=True):
        tick.set_color(SOFT if regime in scores.controls else INK)
        tick.set_fontweight("bold" if regime == scores.baseline else "normal")
    shade = f"; line and shade: {baseline_text(scores)}" if not gains and scores.baseline in regimes else ""
    put_title(figure, question, subtitle + shade, 0.012, wrap)
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
