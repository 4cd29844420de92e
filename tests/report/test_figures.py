import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest

from mtl.report import drawing
from mtl.report.figures import gain_figure, metric_figure, save
from tests.report.example import CONTROLS, NASTY, REGIMES, SIZES, example


@pytest.fixture(scope="module")
def analysis():
    return example()


@pytest.fixture(scope="module")
def metric(analysis):
    return metric_figure(analysis)


@pytest.fixture(scope="module")
def gain(analysis):
    return gain_figure(analysis)


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def texts(figure):
    return [text.get_text() for text in figure.findobj(match=lambda x: hasattr(x, "get_text"))]


def column(analysis, regime, field):
    return np.array([getattr(analysis.cells[regime][size], field) for size in SIZES])


def test_metric_lines_are_the_cells(analysis, metric):
    (axes,) = metric.axes
    drawn = lines(axes)
    assert set(drawn) == set(REGIMES)
    for regime, line in drawn.items():
        np.testing.assert_array_equal(line.get_xdata(), SIZES)
        np.testing.assert_array_equal(line.get_ydata(), 100 * column(analysis, regime, "mean"))
    assert np.isnan(drawn["gradual"].get_ydata()[0])  # failed: a gap


def test_metric_bars_are_the_intervals_and_none_covers_another(analysis, metric):
    (axes,) = metric.axes
    bars = [c for c in axes.collections if type(c).__name__ == "LineCollection"]
    assert len(bars) == len(REGIMES)
    metric.canvas.draw()
    places = {}
    for regime, bar in zip(REGIMES, bars, strict=True):
        drawn = {float(s[0, 0]): s[:, 1].tolist() for s in bar.get_segments() if len(s)}
        for size in SIZES:
            cell = analysis.cells[regime][size]
            if cell.replicates:
                assert drawn[size] == [100 * cell.low, 100 * cell.high]
            places.setdefault(size, []).append(bar.get_transform().transform((size, 90.0))[0])
    ends = []
    for at in places.values():
        assert min(np.diff(at)) * 72 / metric.dpi > 2.5  # Points; a bar is 1.3 wide.
        ends += [min(at), max(at)]
    assert all(a < b for a, b in itertools.pairwise(ends))  # Sizes do not mix.
    box = axes.get_window_extent()
    assert box.x0 <= ends[0] and ends[-1] <= box.x1


def test_metric_axes(analysis, metric):
    (axes,) = metric.axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "20", "50", "100", "200", "500"]
    assert list(axes.get_xticks()) == list(SIZES)
    assert axes.get_ylabel() == "accuracy (%)"
    assert "labels" in axes.get_xlabel()
    words = " ".join(" ".join(texts(metric)).split())
    assert analysis.scores.question in words
    assert analysis.scores.question not in " ".join(" ".join(texts(metric_figure(analysis, titled=False))).split())


def test_baseline_and_controls_stand_out(metric):
    drawn = lines(metric.axes[0])
    widths = {regime: line.get_linewidth() for regime, line in drawn.items()}
    assert widths["scratch"] == max(widths.values())
    assert drawn["scratch"].get_color() == drawing.INK
    assert {regime for regime, line in drawn.items() if line.get_linestyle() == "--"} == set(CONTROLS)
    assert len({(line.get_color(), line.get_marker()) for line in drawn.values()}) == len(REGIMES)


def boxes(figure, names):
    figure.canvas.draw()
    found = [text for text in figure.axes[0].texts if text.get_text() in names]
    return {text.get_text(): text.get_window_extent() for text in found}


def overlapping(extents):
    ordered = sorted(extents.values(), key=lambda box: box.y0)
    return any(a.y1 > b.y0 + 1 for a, b in itertools.pairwise(ordered))  # one pixel for rounding


def test_labels_are_all_there_do_not_overlap_and_stay_inside(metric):
    extents = boxes(metric, set(REGIMES))
    assert set(extents) == set(REGIMES)
    assert not overlapping(extents)
    assert all(box.x1 <= metric.bbox.x1 and box.y0 >= 0 and box.y1 <= metric.bbox.y1 for box in extents.values())


def test_twenty_regimes_with_the_same_curve():
    analysis = example(holes=False)
    names = tuple(f"regime_{i}" for i in range(20))
    cells = {name: analysis.cells["finetune"] for name in names}
    scores = dataclasses.replace(analysis.scores, regimes=names, baseline=names[0], controls=())
    figure = metric_figure(dataclasses.replace(analysis, scores=scores, cells=cells))
    extents = boxes(figure, set(names))
    assert len(extents) == 20
    assert not overlapping(extents)
    drawn = lines(figure.axes[0]).values()
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in drawn}) == 20


def test_gain_panels(analysis, gain):
    panels = {axes.get_title(loc="left"): axes for axes in gain.axes if axes.get_visible()}
    assert set(panels) == set(REGIMES) - {"scratch"}
    for regime, axes in panels.items():
        assert axes.get_xscale() == "log"
        np.testing.assert_array_equal(lines(axes)[regime].get_ydata(), 100 * column(analysis, regime, "gain"))
        ends = np.array([path.vertices[:, 1] for c in axes.collections for path in c.get_paths()])
        np.testing.assert_array_equal(ends[:, 0], 100 * column(analysis, regime, "gain_low"))
        np.testing.assert_array_equal(ends[:, 1], 100 * column(analysis, regime, "gain_high"))
        low, high = axes.get_ylim()
        assert low < np.nanmin(ends) and high > np.nanmax(ends)  # Nothing is cut off.
        (shaded,) = axes.patches
        assert shaded.get_y() == -2.0
        assert shaded.get_height() == 4.0
        filled = [
            line for line in axes.get_lines() if line.get_markerfacecolor() != "white" and line.get_marker() == "o"
        ]
        sure = [size for size in SIZES if analysis.cells[regime][size].claim in ("gain", "harm")]
        assert [x for line in filled for x in line.get_xdata()] == sure


def one_size(analysis, size=50.0):
    at = list(SIZES).index(size)
    cut = {name: getattr(analysis.scores, name)[:, at : at + 1] for name in ("values", "missing", "failed", "chosen")}
    scores = dataclasses.replace(analysis.scores, sizes=(size,), **cut)
    cells = {regime: {size: row[size]} for regime, row in analysis.cells.items()}
    return dataclasses.replace(analysis, scores=scores, cells=cells, crossovers=())


@pytest.mark.parametrize(("draw", "field"), [(metric_figure, "mean"), (gain_figure, "gain")])
def test_of_one_size_each_regime_has_a_row_in_the_tables_order(analysis, draw, field):
    figure = draw(one_size(analysis))
    (axes,) = figure.axes
    regimes = [r for r in REGIMES if field == "mean" or r != "scratch"]
    assert [label.get_text() for label in axes.get_yticklabels()] == regimes
    ends = [line.get_xdata() for line in axes.lines if line.get_label() == "_interval"]
    dots = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]
    cells = [analysis.cells[r][50.0] for r in regimes]
    np.testing.assert_allclose(dots, [100 * getattr(c, field) for c in cells])
    low, high = ("low", "high") if field == "mean" else ("gain_low", "gain_high")
    np.testing.assert_allclose(ends, [[100 * getattr(c, low), 100 * getattr(c, high)] for c in cells])
    top, bottom = axes.get_ylim()[::-1]
    assert top < 0 and bottom > len(regimes) - 1  # The first row is on top.
    base = analysis.cells["scratch"][50.0]
    (behind,) = axes.patches  # What all are compared with stands behind them.
    wanted = [100 * base.low, 100 * base.high] if field == "mean" else [-2.0, 2.0]
    assert [behind.get_x(), behind.get_x() + behind.get_width()] == pytest.approx(wanted)


def test_saving_twice_gives_the_same_bytes(metric, tmp_path):
    files = [save(metric_figure(example()), tmp_path / str(i) / "f") for i in range(2)]
    assert [file.name for file in files[0]] == ["f.png", "f.svg"]
    for first, second in zip(*files, strict=True):
        assert first.read_bytes() == second.read_bytes()
        assert b"<dc:date>" not in first.read_bytes()
    assert files[0][0].read_bytes().startswith(b"\x89PNG")
    assert save(metric, tmp_path / "v1.5") == [tmp_path / "v1.5.png", tmp_path / "v1.5.svg"]


def test_nasty_names_are_drawn_as_they_are(tmp_path):
    # Mathematics, markup and scripts without glyphs are drawn as they are, without a warning.
    odd = dict(zip(REGIMES, (*NASTY, "試す", "_hidden"), strict=False))
    analysis = example(odd)
    figure = metric_figure(analysis)
    shown = set(texts(figure))
    assert {" ".join(name.split()) for name in odd.values()} <= shown
    save(figure, tmp_path / "m.svg")
    save(gain_figure(analysis), tmp_path / "g.svg")


def test_nothing_measured_one_regime_one_size_and_no_labels(analysis):
    scores = analysis.scores
    one = dataclasses.replace(scores, sizes=(10.0,), regimes=scores.regimes[:1])
    zero = dataclasses.replace(scores, sizes=(0.0, *SIZES))
    for odd in (
        dataclasses.replace(analysis, cells={}),
        dataclasses.replace(analysis, scores=one),
        dataclasses.replace(analysis, scores=zero),
    ):
        metric_figure(odd).canvas.draw()
        gain_figure(odd)
    assert metric_figure(dataclasses.replace(analysis, scores=zero)).axes[0].get_xscale() == "symlog"


def test_importing_the_report_does_not_import_matplotlib():
    check = "import sys, mtl.report.page; sys.exit('matplotlib' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False, timeout=60).returncode == 0
