"""Tables, figure and page of several targets: what they show is what was computed, whatever the targets are called."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest

from mtl.report.analysis import Cost
from mtl.report.forest import forest_figure
from mtl.report.page import page
from mtl.report.show import FORMATS, tables_of
from mtl.report.targets import analyse_targets
from tests.report.example import NASTY
from tests.report.studies import crossed, scores_of

REGIMES = ("scratch", "multitask", "probe")


def analysed(names=("a", "b"), sizes=(10.0, 20.0), gains=(0.1, -0.1), **changes):
    found = []
    for k, name in enumerate(names):
        rates = np.full((3, len(sizes)), 0.7)
        rates[1] += gains[k % len(gains)]
        values = crossed(rates, replicates=6, examples=80, seed=k)
        cost = {r: Cost(10.0 + k, 100.0, 1.0, 0.0, 0.5, 1.5, 5.0 + k, 8.0 - k, 1200.0, 4800.0) for r in REGIMES}
        found.append(
            scores_of(values, REGIMES, sizes, task=name, rows=np.arange(80), cost=cost, controls=("probe",), **changes)
        )
    return analyse_targets(found, {"scratch": len(names), "multitask": 1, "probe": len(names)}, 200)


def tables(targets):
    return {table.name: table for _, table in tables_of([targets])}


def test_rows_are_regimes_at_sizes_and_columns_targets_and_their_mean():
    targets = analysed()
    found = tables(targets)
    assert found["result"].header == ("regime", "n", "a", "b", "mean")
    assert found["gain"].header == ("regime", "n", "a", "b", "mean", "Δ_m (%)", "IQM (%)", "P(better) (%)")
    assert [row[0].text for row in found["result"].rows] == [*REGIMES, *REGIMES]
    assert [row[1].text for row in found["gain"].rows] == ["10", "10", "20", "20"]
    gain = found["gain"].rows[0]
    assert gain[2].kind == "gain" and gain[2].text.startswith("▲ +10") and gain[3].text.startswith("▼ −")
    mean = targets.means["multitask"][10.0]
    assert gain[5].text == f"{mean.delta:+.1f}".replace("-", "−")
    assert gain[6].text == f"{mean.iqm:+.1f}".replace("-", "−")
    assert gain[7].text == f"{100 * mean.improvement:.1f}" and gain[7].detail
    assert found["result"].rows[2][0].mark == "°"
    assert tables(analysed(sizes=(10.0,)))["gain"].header == (
        "regime",
        "a",
        "b",
        "mean",
        "Δ_m (%)",
        "IQM (%)",
        "P(better) (%)",
    )


def test_the_cost_is_that_of_all_networks():
    cost = tables(analysed())["cost"]
    assert [[row[i].text for i in (0, 1, 2, 3, 4, 5, 7)] for row in cost.rows] == [
        ["scratch", "2", "2.40 k", "9.60 kB", "11", "21", "8"],
        ["multitask", "1", "1.20 k", "4.80 kB", "5", "10", "8"],
        ["probe", "2", "2.40 k", "9.60 kB", "11", "21", "8"],
    ]
    assert [row[5].note for row in cost.rows] == ["", "0.476×", "1×"]
    assert cost.records[0]["parameters"] == 2400 and cost.records[1]["bytes"] == 4800


def test_of_many_targets_the_first_are_shown_and_all_are_in_the_numbers():
    names = [f"t{k}" for k in range(20)]
    found = tables(analysed(names, sizes=(10.0,)))["result"]
    assert found.header == ("regime", *names[:12], "mean")
    assert "8 more targets are in the CSV and JSON of this table, and in its mean." in found.footnotes
    assert len(found.records) == 3 * 21


def test_each_format_writes_them_and_csv_has_every_number():
    targets = analysed()
    for kind, write in FORMATS.items():
        text = write(tables_of([targets]))
        assert "multitask" in text
        if kind == "json":
            assert {entry["name"] for entry in json.loads(text)} == {"decision", "result", "gain", "cost"}
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](tables_of([targets], "gain")))))
    own = next(r for r in rows if r["target"] == "a" and r["regime"] == "multitask" and r["n"] == "10")
    assert float(own["gain"]) == targets.of["a"].cells["multitask"][10.0].gain and own["delta"] == ""
    mean = next(r for r in rows if r["target"] == "mean over targets" and r["regime"] == "multitask" and r["n"] == "20")
    for name in ("delta", "iqm_low", "improvement_high"):
        assert float(mean[name]) == getattr(targets.means["multitask"][20.0], name)


def test_the_verdict_names_gains_and_negative_transfer_task_by_task():
    (said,) = analysed().details
    assert said.startswith("multitask against scratch: on average over 2 targets ")
    assert "better on a with 10 and 20 labels" in said
    assert said.endswith("negative transfer: worse on b with 10 and 20 labels.")
    (said,) = analysed(gains=(0.0, 0.0)).details
    assert said.endswith("shown to be better on none.")


def test_what_weakens_all_targets_is_said_once():
    targets = analysed()
    few = {name: dataclasses.replace(a, warnings=("Only 2 replicates.",)) for name, a in targets.of.items()}
    few["a"] = dataclasses.replace(few["a"], warnings=("Only 2 replicates.", "An edge."))
    assert dataclasses.replace(targets, of=few).warnings == ("Only 2 replicates.", "a: An edge.")


@pytest.mark.parametrize("titled", [True, False])
def test_the_forest_has_a_panel_a_regime_and_a_line_a_target_and_the_mean(titled):
    targets = analysed(("a", "b", "c"))
    figure = forest_figure(targets, titled)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["multitask", "probe"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["a", "b", "c", "mean"]
    segments = [line.get_xydata() for line in panels[0].lines if line.get_label() == "_interval"]
    cell = targets.of["b"].cells["multitask"][20.0]
    np.testing.assert_allclose(segments[1][:, 0], [100 * cell.gain_low, 100 * cell.gain_high])
    mean = targets.means["multitask"][20.0]
    np.testing.assert_allclose(segments[3][:, 0], [100 * mean.gain_low, 100 * mean.gain_high])


def test_targets_of_any_name_and_of_several_metrics_make_a_page():
    for targets in (analysed(NASTY), analysed(), _mixed()):
        text = page([targets], title="t", provenance={}, trials=[], configs={}, command="mtl report")
        assert "<script>alert" not in text and "Δ_m" in text and "<svg" in text


def _mixed():
    targets = analysed()
    other = dataclasses.replace(targets.of["b"].scores, metric="auroc", task="b")
    return analyse_targets([targets.of["a"].scores, other], targets.networks, 100)


def test_metrics_that_differ_are_named_and_have_no_mean():
    found = tables(_mixed())
    assert "accuracy (%) of a and AUROC (%) of b" in found["result"].title
    assert found["result"].rows[0][-1].text == "—"
    assert [cell.text == "—" for cell in found["gain"].rows[0][-4:]] == [True, False, False, False]
