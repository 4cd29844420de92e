"""Rows and columns of a table that are other fields than regimes and target sizes."""

import numpy as np
import pytest

import mtl
from mtl.commands.read import print_study
from mtl.config import ConfigError, default, flatten, override
from mtl.report.analysis import Sizes
from mtl.report.collect import collect
from mtl.report.details import details
from mtl.report.phrases import with_labels
from mtl.report.publish import analyses_of
from mtl.report.show import print_analysis
from mtl.sweep import chain, product, sweep
from mtl.sweep.chosen import level, tuned
from mtl.sweep.store import Workdir
from mtl.sweep.study import check_base, make_sweep, settle


def config(**changes):
    c = default()
    c.name, c.data.source, c.data.target = "axes", ("identity",), "even"
    c.data.target_size, c.data.test_size = 40, 100
    c.model.options, c.evaluations = {"hidden": (4,)}, 1
    c.source.total_steps, c.target.total_steps = 4, 4
    for path, value in changes.items():
        section, _, name = path.rpartition("__")
        (c[section] if section else c)[name] = value
    return c


SOURCES = product(
    [{"report.columns": "data.source_size", "data.target_size": 30}],
    sweep("data.source_size", (200, 400)),
    sweep("regime", ("scratch", "finetune")),
    sweep("seed", range(2)),
    sweep("lr", (0.1, 0.01)),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    where = tmp_path_factory.mktemp("axes")
    return where, mtl.run_sweep(config(), SOURCES, where, quiet=True)


def test_columns_may_be_another_field_and_numbers_pair_by_replicate(study, capsys):
    where, frame = study
    workdir = Workdir(where)
    scores = collect(workdir, "sweep")
    assert scores.regimes == ("scratch", "finetune") and scores.sizes == (200.0, 400.0)
    entry = workdir.study()["sweeps"]["sweep"]
    assert tuned(entry) == ["lr"] and entry["base"]["data.target_size"] == 30
    chosen = frame[frame.chosen].set_index(["regime", "data.source_size", "seed"])
    for g, regime in enumerate(scores.regimes):
        for s, size in enumerate((200, 400)):
            for seed in range(2):
                assert scores.values[g, s, seed].mean() == pytest.approx(chosen.loc[(regime, size, seed)].test_accuracy)
    (analysis,) = analyses_of(workdir)
    assert print_study(workdir, ["sweep"]) == []
    told = capsys.readouterr().out
    assert "at source_size" in told and "labels" not in told.split("What to do")[0].split("?")[1]
    print_analysis(analysis, width=100, full=True)
    told = capsys.readouterr().out
    assert "accuracy (%) by source_size" in told and "source_size=400" in told and "n=" not in told
    assert "labels" not in details(analysis)[0]
    assert "with 30 labels of even" in scores.question
    page = (where / "report.html").read_text()
    assert "data source size" in page or "data.source_size" in page
    assert ",source_size," in (where / "tables" / "sweep-gain.csv").read_text().partition("\n")[0]


def test_rows_may_be_any_field(tmp_path):
    c = config(regime="scratch", data__source=(), data__hide="at_random")
    c.report.rows, c.report.baseline = "data.hide_rate", "hide_rate=0.2"
    entries = product(sweep("data.hide_rate", (0.2, 0.5)), sweep("seed", range(2)))
    mtl.run_sweep(c, entries, tmp_path, quiet=True)
    (analysis,) = analyses_of(Workdir(tmp_path))
    scores = analysis.scores
    assert scores.regimes == ("hide_rate=0.2", "hide_rate=0.5") and scores.row == "hide_rate"
    assert not np.isnan(analysis.cells["hide_rate=0.5"][40.0].gain)
    assert [sum(f"even {rate}" in note for note in scores.data_notes) for rate in (0.2, 0.5)] == [1, 1]


def test_a_table_across_sweeps_is_their_chain_and_trains_nothing_again(tmp_path):
    c = config(regime="scratch", data__source=(), data__hide="at_random", data__hide_rate=0.1)
    few, many = (
        product(sweep("data.hide_rate", rates), sweep("regime", ("scratch", "random_probe")), sweep("seed", range(2)))
        for rates in ((0.1,), (0.2, 0.5))
    )
    for name, entries in (("few", few), ("many", product([{"report.columns": "data.hide_rate"}], many))):
        mtl.run_sweep(c, entries, tmp_path, name=name, quiet=True)
    results = sorted((tmp_path / "results").iterdir())
    both = product([{"report.columns": "data.hide_rate"}], chain(few, many))
    mtl.run_sweep(c, both, tmp_path, name="both", quiet=True)
    assert sorted((tmp_path / "results").iterdir()) == results
    workdir = Workdir(tmp_path)
    scores = collect(workdir, "both")
    assert scores.sizes == (0.1, 0.2, 0.5) and not scores.missing.any()
    np.testing.assert_array_equal(scores.values[:, :1], collect(workdir, "few").values)
    np.testing.assert_array_equal(scores.values[:, 1:], collect(workdir, "many").values)


def test_what_is_no_axis_must_not_differ():
    base = flatten(config())
    both = product(sweep("data.source_size", (200, 400)), sweep("data.target_size", (20, 40)))
    with pytest.raises(ConfigError, match=r"changes data.source_size between trials: it is about one data set"):
        settle(base, both)
    columns = override(base, {"report.columns": "data.source_size"})
    with pytest.raises(ConfigError, match=r"changes data.target_size between trials: it is about one data set"):
        settle(columns, both)
    settle(override(base, {"report.rows": "data.source_size"}), both)
    rows = override(base, {"report.rows": "data.source_size"})
    with pytest.raises(ConfigError, match="changes regime between trials: it is about one regime"):
        settle(rows, product(sweep("regime", ("scratch", "finetune")), sweep("data.source_size", (200, 400))))
    with pytest.raises(ConfigError, match=r"changes data.target between trials"):
        settle(base, product(sweep("data.target", ("even", "prime"))))


def test_axes_must_be_fields_and_columns_numbers():
    base = flatten(config())
    with pytest.raises(
        ConfigError, match=r'config.report: config.data.sauce_size does not exist; did you mean "data.source'
    ):
        check_base(override(base, {"report.columns": "data.sauce_size"}))
    check_base(override(base, {"report.rows": "data.options.rho"}))
    names = override(base, {"report.columns": "optimizer.name"})
    with pytest.raises(
        ConfigError, match=r'report.columns = "optimizer.name": sweep s has the value .*: must be numbers'
    ):
        make_sweep("s", names, product(sweep("optimizer.name", ("adam", "sgd"))))


def test_a_place_on_an_axis_and_its_words():
    assert level({"data.options": {"rho": 0.5}}, {"data.options.rho": 1.0}, "data.options.rho") == 1.0
    assert level({"model.options": {"hidden": (4, 4)}}, {}, "model.options.hidden") == "[4,4]"
    grid = Sizes.of("data.options.rho", (0.0, 0.5, 1.0))
    assert with_labels([0.5, 1.0], grid) == "at rho 0.5 and 1"
    assert with_labels([0.5, 1.0], tuple(grid)) == "with 0.5 and 1 labels"
