"""How a figure is drawn: colours, axes, the title, names at the ends of lines, bands, and bytes that repeat.

matplotlib is imported inside the functions (the command line must start fast) and never through pyplot (no
global state).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mtl.canvas import own_settings
from mtl.report.phrases import column
from mtl.report.text import row_text, size_text

INK = "#1c1e21"
SOFT = "#6a7078"
GRID = "#8a8f98"
# Okabe and Ito's colours, told apart by colour-blind readers, without the yellow that white paper swallows;
# then four of Paul Tol's. Markers differ too, for print without colour.
COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#882255",
    "#999933",
    "#44aa99",
    "#6a5acd",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
CONTROL_COLORS = ("#7b8088", "#9aa0a8", "#686d74")
CONTROL_MARKERS = ("x", "+", "1")
FONT = 9.0


def new_figure(width: float, height: float) -> Any:
    """Make an empty figure that belongs to no window.

    Args:
      width: inches.
      height: inches.

    Returns:
      A `matplotlib.figure.Figure` with an Agg canvas.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def styles(regimes: Sequence[str], baseline: str = "", controls: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Choose how each regime is drawn, the same in every figure of a sweep.

    Args:
      regimes: in the order of the table.
      baseline: drawn dark and thick.
      controls: drawn dashed and grey.

    Returns:
      matplotlib line properties by regime.

    >>> styles(["scratch", "finetune"], baseline="scratch")["finetune"]["color"]
    '#0072b2'
    """
    controls = set(controls)
    out: dict[str, dict[str, Any]] = {}
    plain = grey = 0
    for regime in regimes:
        if regime == baseline:
            look = {"color": INK, "marker": "o", "linewidth": 2.6, "linestyle": "-", "zorder": 4.0}
        elif regime in controls:
            look = {
                "color": CONTROL_COLORS[grey % 3],
                "marker": CONTROL_MARKERS[grey % 3],
                "linewidth": 1.3,
                "linestyle": "--",
                "zorder": 2.0,
            }
            grey += 1
        else:
            # A second round of the palette is told apart by its line.
            line = ("-", "-.", ":")[plain // len(COLORS) % 3]
            color, marker = COLORS[plain % len(COLORS)], MARKERS[plain % len(MARKERS)]
            look = {"color": color, "marker": marker, "linewidth": 1.6, "linestyle": line, "zorder": 3.0}
            plain += 1
        out[regime] = {**look, "markersize": 5.0, "markeredgewidth": 1.2}
    return out


def clean(axes: Any) -> None:
    """Take away what is not needed of axes, and quieten the rest.

    Args:
      axes: changed in place.
    """
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=FONT, length=3, color=GRID)
    axes.grid(True, axis="y", color=GRID, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def axis_label(sizes: Sequence[float]) -> str:
    """Return what the axis of sizes is called."""
    name = column(sizes)
    return "target labels n (train and validation)" if name == "n" else name


def size_axis(axes: Any, sizes: Sequence[float], label: bool = True) -> None:
    """Make the x axis logarithmic, with ticks at the sizes that were measured; symlog when a size is 0.

    Args:
      axes: changed in place.
      sizes: target sizes.
      label: whether the axis is named.
    """
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    positive = [size for size in sizes if size > 0] or [1.0]
    if min(sizes, default=0.0) > 0:
        axes.set_xscale("log")
        low, high = min(sizes), max(sizes)
        pad = max((high / low) ** 0.045, 1.05)
        axes.set_xlim(low / pad, high * pad)
    else:
        axes.set_xscale("symlog", linthresh=min(positive))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.set_xticks(list(sizes), [size_text(size) for size in sizes])
    if label:
        axes.set_xlabel(axis_label(sizes), fontsize=FONT, color=INK, parse_math=False)


def _title_lines(question: str, width: int) -> tuple[list[str], float]:
    """The question's lines, and the points from the figure's top to the line below them."""
    lines = textwrap.wrap(" ".join(question.split()), width)
    return lines, 8.0 + (len(lines) * 1.25 * (FONT + 2.5) * 1.17 + 3.0 if lines else 0.0)


def title_points(question: str, width: int) -> float:
    """Tell how much room `put_title` takes.

    Args:
      question: as there.
      width: as there.

    Returns:
      Points from the figure's top to where axes may begin.
    """
    return _title_lines(question, width)[1] + FONT * 1.3 + 12


def put_title(figure: Any, question: str, subtitle: str, left: float, width: int) -> None:
    """Write the question in bold, and below it what is shown; both from the figure's left edge.

    Args:
      figure: changed in place.
      question: wrapped; may be empty.
      subtitle: one line.
      left: where they begin, as a share of the figure's width.
      width: characters in a line of the question.
    """
    lines, points = _title_lines(question, width)
    height = figure.get_figheight() * 72
    put = {"ha": "left", "va": "top", "parse_math": False, "linespacing": 1.25}
    if lines:
        text = "\n".join(lines)
        figure.text(left, 1 - 8 / height, text, fontsize=FONT + 2.5, fontweight="bold", color=INK, **put)
    figure.text(left, 1 - points / height, subtitle, fontsize=FONT, color=SOFT, **put)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions apart until neighbours are ``gap`` from each other, as little as needed.

    Args:
      wanted: where they would stand.
      gap: between neighbours.
      low, high: where all must be.

    Returns:
      Where they stand, in the order given.

    >>> spread([0.5, 0.5], 0.1, 0.0, 1.0)
    [0.45, 0.55]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[tuple[float, int]] = []  # centre and number of labels that touch each other
    for i in order:
        centre, count = wanted[i], 1
        groups.append((centre, count))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (a, m), (b, n) = groups[-2:]
            groups[-2:] = [((a * m + b * n) / (m + n), m + n)]
        # A group that sticks out of the axes is moved in whole; later ones still merge with it.
        centre, count = groups[-1]
        half = gap * (count - 1) / 2
        groups[-1] = (min(max(centre, low + half), max(high - half, low + half)), count)
    out, position = [0.0] * len(wanted), 0
    for centre, count in groups:
        for k in range(count):
            out[order[position]] = centre + gap * (k - (count - 1) / 2)
            position += 1
    return out


def short_name(name: str, most: int = 28) -> str:
    """Fit a name on one short line.

    Args:
      name: of a regime.
      most: characters.

    Returns:
      The name, cut with an ellipsis when it is longer.

    >>> short_name("a\\nb"), short_name("abcdef", 4)
    ('a b', 'abc…')
    """
    name = " ".join(name.split())
    return name if len(name) <= most else name[: most - 1] + "…"


def label_room(names: Iterable[str]) -> float:
    """Tell how much room `label_ends` takes right of the axes.

    Args:
      names: of the lines.

    Returns:
      Inches.
    """
    return 0.55 + 0.082 * max((len(short_name(name)) for name in names), default=0)


def label_ends(axes: Any, ends: Mapping[str, tuple[float, float]], looks: Mapping[str, Any], points: float) -> None:
    """Write each line's name beside its end, with its marker, spread so that none overlap.

    Args:
      axes: changed in place; its limits must be final.
      ends: the last point of each line, in data coordinates.
      looks: from `styles`.
      points: the height of the axes.
    """
    looks = {name: dict(looks[name]) for name in ends}
    heights = axes.transData.transform([ends[name] for name in ends] or np.zeros((0, 2)))
    heights = [float(y) for y in axes.transAxes.inverted().transform(heights)[:, 1]] if ends else []
    last = max((x for x, _ in ends.values()), default=0.0)
    gap = (FONT + 3.5) / points
    places = spread(heights, gap, 0.0, 1.0)
    for (name, (x, y)), place in zip(ends.items(), places, strict=True):
        look = looks[name]
        if x == last:  # a leader from further left would cross the other lines
            axes.annotate(
                "",
                xy=(x, y),
                xytext=(1.045, place),
                textcoords="axes fraction",
                annotation_clip=False,
                arrowprops={
                    "arrowstyle": "-",
                    "color": look["color"],
                    "linewidth": 0.8,
                    "alpha": 0.8,
                    "shrinkA": 0,
                    "shrinkB": 5,
                },
            )
        key = look | {"zorder": 5, "clip_on": False, "transform": axes.transAxes, "linewidth": 2.0}
        if key["marker"]:
            key["linestyle"] = ""
            axes.plot([1.055], [place], label="_key", **key)
        else:
            axes.plot([1.045, 1.07], [place, place], label="_key", **key)
        axes.text(
            1.078,
            place,
            short_name(row_text(name)),
            transform=axes.transAxes,
            va="center_baseline",
            fontsize=FONT,
            color=SOFT if look["linestyle"] == "--" else INK,
            fontweight="bold" if look["linewidth"] > 2 else "normal",
            parse_math=False,
        )


def panel_title(axes: Any, regime: str) -> None:
    """Write a regime's name above its panel.

    Args:
      axes: changed in place.
      regime: its name.
    """
    put = {"fontsize": FONT, "color": INK, "loc": "left", "pad": 4, "parse_math": False, "fontweight": "bold"}
    axes.set_title(short_name(row_text(regime), 22), **put)


def dodge(axes: Any, names: Sequence[str], sizes: Sequence[float]) -> dict[str, Any]:
    """Return a transform for each line, a few points beside the others', so that their intervals do not cover.

    Args:
      axes: their limits are widened for it; final from then on.
      names: of the lines, in the order in which they stand side by side.
      sizes: where their points are.

    Returns:
      What to draw each line with, in data coordinates.
    """
    from matplotlib.transforms import ScaledTranslation

    def places() -> np.ndarray:
        points = np.array([(size, 0.0) for size in sizes]).reshape(-1, 2)
        return np.sort(axes.transData.transform(points)[:, 0]) * 72 / axes.figure.dpi

    gap = float(np.diff(places()).min(initial=math.inf))
    step = min(4.0, 0.62 * gap / max(1, len(names)))
    wide = axes.get_window_extent().width * 72 / axes.figure.dpi
    # The outermost points of the outermost lines keep inside the axes.
    room = min(0.2, (step * len(names) / 2 + 4) / wide)
    scale = axes.xaxis.get_transform()
    ends = scale.transform(np.array([min(sizes), max(sizes)], float))
    pad = (ends[1] - ends[0]) * room / (1 - 2 * room) or 0.1
    axes.set_xlim(*scale.inverted().transform(ends + np.array([-pad, pad])))
    beside = [step * (i - (len(names) - 1) / 2) for i in range(len(names))]
    return {
        name: axes.transData + ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans)
        for name, points in zip(names, beside, strict=True)
    }


def draw_rows(axes: Any, y: np.ndarray, values: np.ndarray, colors: Sequence[str], filled: np.ndarray) -> None:
    """Draw a number a row with its interval; the first row is on top.

    Args:
      axes: changed in place.
      y: where the rows are, from the top.
      values: [rows, 3]: the number and the ends of its interval; NaN where there are none.
      colors: one a row.
      filled: whether each marker is.
    """
    for at, (middle, low, high), color, full in zip(y, values, colors, filled, strict=True):
        axes.plot([low, high], [at, at], color=color, linewidth=1.8, zorder=3, solid_capstyle="butt", label="_interval")
        face = color if full else "white"
        axes.plot([middle], [at], "o", markersize=5.2, markeredgecolor=color, markerfacecolor=face, zorder=4)
    if len(y):
        axes.set_ylim(y[-1] + 0.7, y[0] - 0.7)
    clean(axes)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x", color=GRID, alpha=0.25, linewidth=0.6)
    axes.tick_params(axis="y", length=0)


def limits(axes: Any, *values: Any) -> None:
    """Set the y axis to what is finite, with a little room.

    Args:
      axes: changed in place.
      values: all that is drawn.
    """
    every = np.concatenate([np.ravel(v) for v in values]) if values else np.zeros(0)
    known = every[np.isfinite(every)]
    if len(known):
        low, high = float(known.min()), float(known.max())
        pad = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
        axes.set_ylim(low - pad, high + pad)


def write(figure: Any, target: Any, kind: str, fonttype: str = "path") -> None:
    """Write a figure in one format, the same bytes for the same figure.

    Args:
      figure: from this module.
      target: a path or an open file.
      kind: ``png`` or ``svg``.
      fonttype: for SVG, ``path`` draws letters as shapes, ``none`` keeps them text.
    """
    import warnings

    # Unless told not to, ids in an SVG are salted with chance, and both formats carry date or version.
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with own_settings(svg_hashsalt="mtl", svg_fonttype=fonttype), warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes; that is no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(target, format=kind, metadata=metadata)
