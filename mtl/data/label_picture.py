"""A picture of a table's labels: what each example has, what is missing, and what comes together."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from mtl.canvas import own_settings
from mtl.data.describe import co_occurrence, conditional
from mtl.data.table import Table

# Rows of the picture: as many as there are pixels for.
_ROWS = 720

# Names are drawn for so many tasks; more would overlap.
_NAMED = 48

_MISSING, _NEGATIVE, _POSITIVE, _INK, _SOFT = "#ececee", "#c3dcef", "#0a5a94", "#1c1e21", "#6a7078"


@own_settings()
def label_picture(table: Table, path: str | pathlib.Path) -> None:
    """Write a PNG: on the left each example's labels, on the right what binary tasks are positive together.

    Examples are sorted by which labels they have, then by the labels, so that what is missing together stands
    together; of more than 720, every so many-th is drawn. A class or a number is coloured by its rank.

    Args:
      table: the data.
      path: of the PNG.

    >>> import tempfile
    >>> from mtl.data.sets.digits import digits_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     label_picture(digits_table(), f"{folder}/labels.png")
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    together = co_occurrence(table)
    side = len(together["tasks"])
    wide = min(7.0, max(3.4, 0.26 * len(table.tasks) + 0.6))
    square = min(5.6, max(3.0, 0.34 * side)) if side > 1 else 0.0
    figure = Figure(figsize=(1.4 + wide + (square + 2.4 if square else 0.0), 7.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [wide, square] if square else [wide]
    axes = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    _matrix(axes[0], table)
    if square:
        _together(axes[1], together)
    figure.suptitle(f"Labels of {table.name}", color=_INK, fontsize=12, fontweight="bold", parse_math=False)
    figure.savefig(path, format="png", metadata={"Software": None})


def _matrix(axes: Any, table: Table) -> None:
    """Draw each example's labels as a row of cells."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    codes = np.stack([_ranks(table, task.name) for task in table.tasks], axis=1)  # NaN where missing
    keys = np.nan_to_num(codes, nan=2.0)
    order = np.lexsort((*keys.T[::-1], *np.isnan(codes).T[::-1]))
    shown = order[np.linspace(0, len(order) - 1, min(_ROWS, len(order))).round().astype(int)]
    image = np.empty((len(shown), len(table.tasks), 3))
    ranked = False
    for column, task in enumerate(table.tasks):
        values = codes[shown, column]
        if task.labels == "binary":
            low, high = np.array(to_rgb(_NEGATIVE)), np.array(to_rgb(_POSITIVE))
            colours = np.where(values[:, None] > 0.5, high, low)
        else:
            ranked = True
            colours = _scale()(np.nan_to_num(values))[:, :3]
        image[:, column] = np.where(np.isnan(values)[:, None], to_rgb(_MISSING), colours)
    axes.imshow(image, aspect="auto", interpolation="nearest")
    _names(axes, [task.name for task in table.tasks], rows=False)
    axes.set_yticks([])
    for edge in np.arange(1, len(table.tasks)) - 0.5 if len(table.tasks) <= _NAMED else ():
        axes.axvline(edge, color="white", linewidth=1.5)
    every = f", {len(shown):,} of them drawn" if len(shown) < len(table) else ""
    axes.set_ylabel(f"{len(table):,} examples, sorted{every}", color=_SOFT)
    kinds = {task.labels for task in table.tasks}
    legend = [Patch(color=_POSITIVE, label="positive"), Patch(color=_NEGATIVE, label="negative")]
    legend = legend if "binary" in kinds else []
    if ranked:
        legend += [Patch(color=_scale()(v), label=what) for v, what in zip((0.0, 1.0), _ends(table), strict=True)]
    legend.append(Patch(facecolor=_MISSING, edgecolor="#c4c6ca", label="missing"))
    axes.legend(
        handles=legend, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, frameon=False, fontsize=8.5,
        handlelength=1.0, columnspacing=1.2,
    )  # fmt: skip


def _ends(table: Table) -> tuple[str, str]:
    """Return what the ends of the scale of colours are: the first and the last class, where all tasks have the same."""
    ranked = [table.classes.get(task.name, ()) for task in table.tasks if task.labels != "binary"]
    names = ranked[0]
    return (names[0], names[-1]) if names and len(set(ranked)) == 1 else ("lowest label", "highest label")


def _together(axes: Any, together: dict[str, Any]) -> None:
    """Draw what share of each task's positives are positive in each other task."""
    names, shares = together["tasks"], 100 * conditional(together)
    np.fill_diagonal(shares, np.nan)
    shown = axes.imshow(np.ma.masked_invalid(shares), cmap="YlGnBu", vmin=0, vmax=100, interpolation="nearest")
    axes.set_facecolor("white")
    _names(axes, names, rows=True)
    if len(names) <= 16:
        for i, j in np.argwhere(~np.isnan(shares)):
            dark = shares[i, j] > 55
            axes.text(
                j, i, f"{shares[i, j]:.0f}", ha="center", va="center", fontsize=8, color="white" if dark else _INK
            )
    axes.set_title("Of the examples where the row is positive,\n% where the column is too", fontsize=9.5, color=_INK)
    bar = axes.figure.colorbar(shown, ax=axes, shrink=0.5, pad=0.02, format="%d %%")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=0, colors=_SOFT)


def _names(axes: Any, names: list[str], rows: bool) -> None:
    short = [n if len(n) <= 22 else f"{n[:20]}…" for n in names]
    size = 8.5 if len(names) <= 24 else 6.5
    axes.xaxis.tick_top()
    if len(names) <= _NAMED:
        plain = {"fontsize": size, "parse_math": False}  # A name may hold two "$".
        axes.set_xticks(range(len(names)), short, rotation=90 if len(names) > 4 else 0, **plain)
        if rows:
            axes.set_yticks(range(len(names)), short, **plain)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.xaxis.set_label_position("top")
        axes.set_xlabel(f"{len(names):,} tasks", color=_SOFT, fontsize=9)
    axes.tick_params(length=0, colors=_INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _scale() -> Any:
    """Return a scale of colours that meets neither those of binary labels nor the grey of missing ones."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ranks", ["#fde7b5", "#e8862b", "#7a1f3d"])


def _ranks(table: Table, task: str) -> np.ndarray:
    """Return [N] labels scaled to [0, 1] by rank, NaN where missing."""
    mask, labels = table.mask[task], table.labels[task]
    found = np.full(len(table), np.nan)
    if task in table.positions:  # A map has no rank: it is there, or it is not.
        found[mask] = 1.0
        return found
    distinct, ranks = np.unique(labels[mask], return_inverse=True)
    if table.task(task).labels == "binary":
        found[mask] = labels[mask]
    else:
        found[mask] = ranks / max(1, len(distinct) - 1)
    return found
