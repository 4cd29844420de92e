"""Figures of a sweep of several targets: each one's gain with its interval, by name or, of hundreds, sorted.

The same analysis gives the same bytes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mtl.canvas import own_settings
from mtl.report.drawing import (
    FONT,
    INK,
    SOFT,
    clean,
    draw_rows,
    label_room,
    new_figure,
    panel_title,
    put_title,
    short_name,
    styles,
    title_points,
)
from mtl.report.figures import baseline_text
from mtl.report.phrases import column
from mtl.report.targets import Targets
from mtl.report.text import gain_unit_text, size_text

#: So many targets have a row with their name; more are sorted by their gain.
NAMED = 40

#: What is claimed of a target has a colour, and all that is claimed has the same one in each panel.
CLAIMS = {"gain": "#009e73", "harm": "#d55e00", "equivalent": "#0072b2", "inconclusive": "#8a8f98"}

#: Of targets that are too many to be named, the extreme ones are.
_EXTREME = 5


def middle(targets: Targets) -> float:
    """Return the size that is drawn where one stands for all."""
    return targets.scores.sizes[len(targets.scores.sizes) // 2]


@own_settings()
def forest_figure(targets: Targets, titled: bool = True, size: float | None = None) -> Any:
    """Draw each target's gain over the baseline with its 95 % interval, a panel a regime.

    Up to 40 targets have a row each, and their mean stands below. More are sorted by their gain from left to right,
    coloured by what is claimed of them, and only the extreme five are named (a caterpillar plot).

    Args:
      targets: of one sweep.
      titled: whether the question stands above it.
      size: which; the middle one of several if not given.

    Returns:
      A `matplotlib.figure.Figure`.
    """
    size = middle(targets) if size is None else size
    points = " or ".join(dict.fromkeys(gain_unit_text(a.scores.metric, a.scores.unit) for a in targets.of.values()))
    label = (
        f"gain over {baseline_text(targets.scores)} in {points} at {column(targets.scores.sizes)} = {size_text(size)}"
    )
    question = targets.scores.question if titled else ""
    return (_forest if len(targets.of) <= NAMED else _caterpillar)(targets, size, question, label)


def _panels(targets: Targets, question: str, each: float, below: float, left: float) -> tuple[Any, dict[str, Any]]:
    """Return a figure, and its panels by regime, of which ``each`` takes so many points."""
    regimes = [regime for regime in targets.scores.regimes if regime != targets.scores.baseline]
    columns = min(4 if len(targets.of) <= NAMED else 2, max(1, len(regimes)))
    rows = max(1, -(-len(regimes) // columns))
    above = title_points(question, 92)
    width, height = 8.6, (rows * each + above + below) / 72
    figure = new_figure(width, height)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    top = 1 - (above + 16) / 72 / height
    figure.subplots_adjust(left / width, below / 72 / height, 0.985, top, 0.08, 24 / (each - 24))
    for axes in panels.flat[len(regimes) :]:
        axes.set_visible(False)
    return figure, dict(zip(regimes, panels.flat, strict=False))


def _forest(targets: Targets, size: float, question: str, label: str) -> Any:
    """Draw a row a target."""
    scores, names = targets.scores, list(targets.of)
    looks = styles(scores.regimes, scores.baseline, scores.controls)
    y = np.array([*range(len(names)), len(names) + 0.4])  # The mean stands a little apart.
    figure, panels = _panels(targets, question, 15.0 * (len(names) + 2) + 24, 34.0, label_room(names))
    for regime, axes in panels.items():
        mean, color = targets.means[regime][size], looks[regime]["color"]
        cells = [(targets.of[name].cells[regime][size], targets.of[name].scores.unit) for name in names]
        drawn = [(c.gain * unit, c.gain_low * unit, c.gain_high * unit) for c, unit in cells]
        drawn.append((mean.gain * scores.unit, mean.gain_low * scores.unit, mean.gain_high * scores.unit))
        sure = np.array([*(c.claim in ("gain", "harm") for c, _ in cells), False])
        axes.axvline(0, color=INK, linewidth=1.0, zorder=1)
        draw_rows(axes, y, np.array(drawn, float), [color] * len(y), sure)
        axes.lines[-1].set(marker="D", markeredgecolor=INK)
        axes.lines[-2].set_color(INK)
        axes.set_yticks(y, [*(short_name(name) for name in names), "mean"], parse_math=False)
        panel_title(axes, regime)
    put_title(figure, question, f"{label}, 95 % intervals; filled: significant after Holm", 0.012, 92)
    return figure


def _caterpillar(targets: Targets, size: float, question: str, label: str) -> Any:
    """Draw all targets by their gain, from the least to the most."""
    from matplotlib.lines import Line2D

    figure, panels = _panels(targets, question, 165.0, 30.0, 0.62)
    for regime, axes in panels.items():
        found = []
        for name, analysis in targets.of.items():
            cell, unit = analysis.cells[regime][size], analysis.scores.unit
            if math.isfinite(cell.gain):
                found.append((cell.gain * unit, cell.gain_low * unit, cell.gain_high * unit, cell.claim, name))
        found.sort(key=lambda f: (f[0], f[4]))
        gain, low, high = np.array([f[:3] for f in found], float).reshape(-1, 3).T
        x = np.arange(len(found))
        axes.axhline(0, color=INK, linewidth=1.0, zorder=2)
        for claim, color in CLAIMS.items():  # One path a claim: a page holds thousands of intervals.
            of = np.array([f[3] == claim for f in found], bool)
            bars = np.stack([low[of], high[of], np.full(of.sum(), np.nan)], axis=1).ravel()
            sure = claim in ("gain", "harm")
            put = {"color": color, "linewidth": 0.9 if sure else 0.6, "alpha": 1.0 if sure else 0.7}
            axes.plot(np.repeat(x[of], 3), bars, label="_interval", zorder=3 if sure else 1, **put)
        axes.plot(x, gain, color=INK, linewidth=1.3, label=regime, zorder=4)
        clean(axes)
        axes.set_xlim(-0.03 * len(found), 1.03 * len(found))
        axes.set_xticks([])
        panel_title(axes, regime)
        _name_extremes(axes, found)
        counts = [(sum(f[3] == claim for f in found), word) for claim, word in (("gain", "better"), ("harm", "worse"))]
        told = ", ".join(f"{n:,} {word}" for n, word in counts)
        axes.set_title(f"{told} of {len(found):,}", fontsize=FONT - 1, color=SOFT, loc="right", pad=4)
    words = ("better", "worse", "equivalent", "not shown")
    keys = [
        Line2D([], [], color=color, linewidth=2.5, label=word)
        for color, word in zip(CLAIMS.values(), words, strict=True)
    ]
    keys.append(Line2D([], [], color=INK, linewidth=1.3, label="gain"))
    figure.legend(
        handles=keys, loc="lower center", ncols=5, frameon=False, fontsize=FONT, labelcolor=INK, borderaxespad=0.1
    )
    put_title(figure, question, f"{label}; {len(targets.of):,} targets from the least gain to the most", 0.012, 92)
    return figure


def _name_extremes(axes: Any, found: list[tuple[float, float, float, str, str]]) -> None:
    """Name the targets whose gains are the furthest from 0."""
    at = sorted(range(len(found)), key=lambda i: (-abs(found[i][0]), found[i][4]))[:_EXTREME]
    points = axes.get_window_extent().height * 72 / axes.figure.dpi
    for right in (True, False):  # Beside the end of the row that they are at, the extreme one outermost.
        those = [i for i in at if (i >= len(found) / 2) == right]
        step = (FONT + 0.5) / points
        places = [0.955 - step * k if right else 0.045 + step * k for k in range(len(those))]
        for i, place in zip(those, places, strict=True):
            axes.text(
                0.93 if right else 0.07,
                place,
                short_name(found[i][4], 24),
                transform=axes.transAxes,
                ha="right" if right else "left",
                va="center",
                fontsize=FONT - 2,
                color=INK,
                parse_math=False,
                zorder=6,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
            )
