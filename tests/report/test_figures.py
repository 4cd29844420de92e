import dataclasses
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from mtl.report import drawing
from mtl.report.figures import curves_figure, gain_figure, metric_figure, save
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


def test_metric_bands_are_the_intervals(analysis, metric):
    (axes,) = metric.axes
    bands = [c.get_paths() for c in axes.collections if type(c).__name__ == "FillBetweenPolyCollection"]
    assert len(bands) == len(REGIMES)
    for regime, paths in zip(REGIMES, bands, strict=True):
        corners = {(float(x), float(y)) for path in paths for x, y in path.vertices}
        for field in ("low", "high"):
            for size, value in zip(SIZES, 100 * column(analysis, regime, field), strict=True):
                assert math.isnan(value) or (size, value) in corners


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
        (shaded,) = axes.patches
        assert shaded.get_y() == -2.0
        assert shaded.get_height() == 4.0
        filled = [
            line for line in axes.get_lines() if line.get_markerfacecolor() != "white" and line.get_marker() == "o"
        ]
        sure = [size for size in SIZES if analysis.cells[regime][size].claim in ("gain", "harm")]
        assert [x for line in filled for x in line.get_xdata()] == sure


def test_curves_match_a_t_interval():
    from scipy import stats

    values = np.random.default_rng(0).normal(1.0, 0.2, (7, 5))
    values[3, 2] = np.nan
    values[4, 2] = np.inf
    figure = curves_figure(
        {"scratch": values, "probe": values[0]},
        {"scratch": [10, 20, 30, 40, 50]},
        title="How?",
        ylabel="loss",
        baseline="scratch",
    )
    (axes,) = figure.axes
    drawn = lines(axes)
    finite = np.where(np.isfinite(values), values, np.nan)
    np.testing.assert_allclose(drawn["scratch"].get_ydata(), np.nanmean(finite, 0))
    np.testing.assert_array_equal(drawn["scratch"].get_xdata(), [10, 20, 30, 40, 50])
    np.testing.assert_array_equal(drawn["probe"].get_xdata(), [1, 2, 3, 4, 5])
    corners = axes.collections[0].get_paths()[0].vertices
    for i, x in enumerate((10, 20, 30, 40, 50)):
        known = finite[:, i][np.isfinite(finite[:, i])]
        low, high = stats.t.interval(0.95, len(known) - 1, known.mean(), stats.sem(known))
        ys = corners[corners[:, 0] == x][:, 1]
        assert ys.min() == pytest.approx(low)
        assert ys.max() == pytest.approx(high)
    assert any("7 replicates" in text for text in texts(figure))


def test_curves_on_a_log_axis_and_bad_shapes(tmp_path):
    figure = curves_figure({"a": [[1.0, 0.1], [2.0, 0.0001]]}, title="t", ylabel="y", log=True)
    assert figure.axes[0].get_yscale() == "log"
    save(figure, tmp_path / "c.png")
    with pytest.raises(ValueError, match=r"curves\['a'\] has 3 axes"):
        curves_figure({"a": np.zeros((1, 2, 3))}, title="t", ylabel="y")
    with pytest.raises(ValueError, match=r"steps\['a'\] has shape \(3,\); the curve has 2 values"):
        curves_figure({"a": [1.0, 2.0]}, {"a": [1, 2, 3]}, title="t", ylabel="y")


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


def test_a_point_between_gaps_keeps_its_interval(analysis):
    cells = {name: dict(row) for name, row in analysis.cells.items()}
    for size in (20.0, 100.0):
        del cells["finetune"][size]
    (axes,) = metric_figure(dataclasses.replace(analysis, cells=cells)).axes
    bars = [c for c in axes.collections if type(c).__name__ == "LineCollection"]
    cell = cells["finetune"][50.0]
    segments = [segment for bar in bars for segment in bar.get_segments()]
    assert any(np.array_equal(s, [[50, 100 * cell.low], [50, 100 * cell.high]]) for s in segments)


def test_importing_the_report_does_not_import_matplotlib():
    check = "import sys, mtl.report.page; sys.exit('matplotlib' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False, timeout=60).returncode == 0
