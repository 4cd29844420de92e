"""From a table to a verdict and a model by one command."""

import re
import time

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mtl
from mtl.cli import main
from mtl.commands import proposal, waves
from mtl.commands.waves import Clock
from mtl.report.looks import advised
from mtl.report.publish import analyses_of
from mtl.sweep.snapshots import Interrupt
from mtl.sweep.store import Workdir


def related(rows=90, seed=0):
    """Two tasks that are all but the same."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    y = x[:, 0] + 0.3 * rng.normal(size=rows) > 0
    near = x[:, 0] + 0.1 * rng.normal(size=rows) > 0
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "ill": y.astype(int), "near": near.astype(int)})


@pytest.fixture
def looks(monkeypatch):
    """Plan fewer replicates, regimes and rates: the machine that tests may be slow."""
    few, rates = (3, 4, 5), (3e-3, 1e-2)
    for module in (proposal, waves):
        monkeypatch.setattr(module, "LOOKS", few)
        monkeypatch.setattr(module, "RATES", rates)
        monkeypatch.setattr(module, "KEPT", 1)
    monkeypatch.setattr(proposal, "CONTENDERS", ("finetune", "multitask"))
    return few


def test_the_clock_asks_to_stop_once_the_time_is_spent():
    interrupt = Interrupt()
    with Clock(0.05, interrupt) as clock:
        time.sleep(0.2)
    assert interrupt.number and clock.spent and clock.left == 0
    interrupt = Interrupt()
    with Clock(60.0, interrupt) as clock:
        assert 50 < clock.left <= 60
    assert not interrupt.number and not clock.spent


def test_the_time_may_be_spent_before_the_first_look(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    related().to_csv("pets.csv", index=False)
    assert main(["compare", "pets.csv", "--target", "ill", "--budget", "0.01s", "--jobs", "0"]) == 0
    captured = capsys.readouterr()
    assert "verdict Cannot tell: the time was spent before the first look" in captured.out
    for said in ("nothing to transfer from", "logistic_regression and forest", "after 5, 10, 20, 40", "1.25 %"):
        assert said in captured.err
    (tmp_path / "runs" / "pets_ill" / "study.py").write_text("mine = 1\n")
    assert main(["compare", "pets.csv", "--target", "ill", "--budget", "1s", "--jobs", "0"]) == 2
    assert "is not of `mtl compare`" in capsys.readouterr().err


@pytest.mark.slow
def test_a_frame_comes_to_a_verdict_and_a_model_and_the_same_call_goes_on(tmp_path, looks):
    frame, told = related(), {"target": "ill", "also": "near", "workdir": tmp_path / "run", "jobs": 0, "quiet": True}
    found = mtl.compare(frame, budget="10m", **told)
    assert re.match(r"Do |Cannot tell", found.verdict) and found.verdict.endswith(".")
    assert set(found.table.index) >= {"scratch", "finetune", "multitask", "logistic_regression"}
    assert found.table.replicates.max() in looks
    assert (found.path / "report.html").is_file() and found.verdict in repr(found)
    p = found.model.predict(frame.drop(columns=["ill", "near"]))
    assert len(p) == 90 and (p.ill.astype(int).to_numpy() == frame.ill).mean() > 0.75
    assert not {"ill", "near"} & set(mtl.load(found.trials[0]).inputs["columns"])  # Neither task is an input.
    before = Workdir(found.path).hashes()
    again = mtl.compare(frame, budget="10m", **told)
    assert again.verdict == found.verdict and Workdir(found.path).hashes() == before  # Nothing was run again.
    # The config gives the same table.
    assert main(["sweep", f"--config={found.path / 'study.py'}", f"--workdir={found.path}", "--jobs=0"]) == 0
    assert Workdir(found.path).hashes() == before
    with pytest.raises(ValueError, match="choose another"):
        mtl.compare(frame, **(told | {"also": ()}))


@pytest.mark.slow
def test_a_wave_that_the_time_cuts_is_not_looked_at(tmp_path, monkeypatch, looks):
    """The second wave is cut: the tables are those of the first look, and the same call takes the second."""
    frame, told = related(), {"target": "ill", "also": "near", "workdir": tmp_path / "run", "jobs": 0, "quiet": True}
    monkeypatch.setattr(waves, "state", lambda *_: waves.OPEN)
    looked = waves.Study.write

    def write(self, look):
        looked(self, look)
        if look == 1 and not self.ended:  # The second wave begins: its time is over.
            clocks[-1].end = time.monotonic()
            clocks[-1]._ring()

    clocks = []

    class Kept(Clock):
        def __init__(self, *args):
            super().__init__(*args)
            clocks.append(self)

    monkeypatch.setattr(waves, "Clock", Kept)
    monkeypatch.setattr(waves.Study, "write", write)
    found = mtl.compare(frame, budget="10m", **told)
    assert "time is spent" in found.ended and set(found.table.replicates) == {looks[0]}
    assert mtl.results(found.path)["seed"].max() == looks[0] - 1
    monkeypatch.setattr(waves.Study, "write", looked)
    monkeypatch.setattr(waves, "LOOKS", looks[:2])
    again = mtl.compare(frame, budget="10m", **told)
    assert set(again.table.replicates) == {looks[1]}


def tables():
    """Tables that scikit-learn carries: their columns, what to predict, other tasks, and whether it is a number."""
    cancer = datasets.load_breast_cancer(as_frame=True).frame.rename(columns={"target": "benign"})
    diabetes = datasets.load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression"})
    diabetes["sex"] = (diabetes["sex"] > 1).astype(int)
    digits = datasets.load_digits(as_frame=True).frame.rename(columns={"target": "digit"})
    digits["even"], digits["loop"] = (digits.digit % 2 == 0) * 1, digits.digit.isin([0, 6, 8, 9]) * 1
    return {
        "diabetes": (diabetes, "progression:regression", ("sex", "bp:regression")),
        "digits": (digits[:900], "even", ("loop", "digit:multiclass")),
        "cancer alone": (cancer, "benign:binary", ()),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diabetes", "digits", "cancer alone"])
@pytest.mark.usefixtures("looks")
def test_real_tables_come_to_a_verdict_by_one_command(name, tmp_path, monkeypatch, capsys):
    frame, target, also = tables()[name]
    monkeypatch.chdir(tmp_path)
    frame.to_csv("table.csv", index=False)
    words = ["compare", "table.csv", "--target", target, "--budget", "10m", "--workdir", "run", "--jobs", "0"]
    assert main([*words, *(["--also", ",".join(also)] if also else [])]) == 0
    shown = capsys.readouterr().out
    (verdict,) = re.findall("^verdict (.*)$", shown, re.MULTILINE)
    print(name, verdict)
    assert re.match("Do |Cannot tell (yet|with these labels) whether", verdict)
    assert "report  run/report.html" in shown and "config  run/study.py" in shown and "model   run/trials/" in shown
    # What is recommended is held against scikit-learn's models on the same rows.
    column = target.partition(":")[0]
    tested = mtl.results("run", "predictions")
    rows = np.sort(tested.loc[tested.task == column, "row"].unique())
    x = frame.drop(columns=[column, *(a.partition(":")[0] for a in also)]).to_numpy(float)
    y, test = frame[column].to_numpy(), np.isin(np.arange(len(frame)), rows)
    theirs = others(x, y, test, name)
    (analysis,) = analyses_of(Workdir("run"))
    cells = {r: row[analysis.scores.sizes[-1]] for r, row in analysis.cells.items()}
    print({r: round(c.mean, 3) for r, c in cells.items()}, theirs)
    assert cells[advised(analysis)].high >= max(theirs.values())


def others(x, y, test, name):
    """Scores of scikit-learn's tuned linear model and of its gradient boosting on the same rows."""
    if name == "diabetes":
        models = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 3, 12))), HistGradientBoostingRegressor()
        return {type(m).__name__: r2_score(y[test], m.fit(x[~test], y[~test]).predict(x[test])) for m in models}
    linear = GridSearchCV(LogisticRegression(max_iter=2000), {"C": np.logspace(-3, 2, 6)})
    models = make_pipeline(StandardScaler(), linear), HistGradientBoostingClassifier()
    return {type(m).__name__: accuracy_score(y[test], m.fit(x[~test], y[~test]).predict(x[test])) for m in models}
