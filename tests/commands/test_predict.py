"""``mtl predict``: new rows by the networks that a study advises; what is unknown is said, what is wrong a sentence."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import mtl
from mtl.cli import main
from mtl.config import default
from mtl.report.publish import analyses_of
from mtl.sweep import product, sweep
from mtl.sweep.store import Workdir

ROWS = 300


def pets():
    rng = np.random.default_rng(0)
    weight, breed = rng.normal(10, 3, ROWS), rng.choice(["collie", "pug", "owl"], ROWS)
    ill = weight + 4 * (breed == "pug") + rng.normal(size=ROWS) > 12
    frame = pd.DataFrame(
        {
            "chip": [f"C{i:04d}" for i in rng.permutation(ROWS)],
            "weight": [f"{w:.2f}".replace(".", ",") for w in weight],
            "breed": breed,
            "ill": np.where(ill, "ja", "nein"),
            "dose": [f"{d:.2f}".replace(".", ",") for d in 50 + 10 * weight],
        }
    )
    frame.loc[rng.choice(ROWS, 30, replace=False), "weight"] = ""
    return frame


def config(path, **data):
    c = default()
    c.name, c.data.name, c.data.source, c.data.target = "pets", "table", ("dose",), "ill"
    c.data.options = {"path": str(path), "labels": {"ill": "binary", "dose": ""}, "classes": {"ill": ("nein", "ja")}}
    c.data.target_size, c.data.target_pool, c.data.test_size = 40, 40, 60
    c.data.source_size, c.data.source_val_size = 100, 20
    c.model.options, c.evaluations = {"hidden": (4,)}, 2
    c.source.total_steps, c.target.total_steps, c.lr = 20, 20, 0.01
    for name, value in data.items():
        c.data[name] = value
    return c


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pets")
    pets().to_csv(folder / "pets.csv", sep=";", index=False)
    entries = product(sweep("regime", ("scratch", "finetune")), sweep("seed", range(2)))
    mtl.run_sweep(config(folder / "pets.csv"), entries, folder / "work", quiet=True)
    return folder


def predicted(capsys, study, *arguments):
    code = main(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_rows_are_predicted_by_the_advised_replicates(study, capsys):
    work, out = study / "work", study / "out.csv"
    code, _, err = predicted(capsys, study, work, study / "pets.csv", "-o", out)
    assert code == 0, err
    (analysis,) = analyses_of(Workdir(work))
    decision = analysis.decisions[-1]
    assert err == f"{out}: 300 rows, by {decision.do} at 40, 2 replicates of sweep\n"
    found = pd.read_csv(out)
    assert list(found) == ["chip", "ill", "ill=ja", "ill=ja std"]
    assert found["chip"].tolist() == pets()["chip"].tolist()
    chosen = mtl.results(work).query("regime == @decision.do")
    frame = pets().drop(columns=["ill", "dose", "chip"])  # Labels and ids are not needed.
    each = np.stack([mtl.load(work / "trials" / digest).predict(frame) for digest in chosen["hash"]])
    np.testing.assert_allclose(found["ill=ja"], each.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["ill=ja std"], each.std(axis=0, ddof=1), rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found["ill"] == "ja", each.mean(axis=0) > 0.5)
    again = mtl.advised(work).predict(pets())
    pd.testing.assert_frame_equal(again, found, check_dtype=False)


def test_what_a_study_tested_is_what_it_predicts(study):
    work = study / "work"
    tested = mtl.results(work, "predictions")
    one = tested[tested["hash"] == tested["hash"].iloc[0]]
    p = mtl.load(work / "trials" / one["hash"].iloc[0]).predict(pets().iloc[one["row"]])
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-one["output"].to_numpy())), rtol=1e-5)


def test_another_row_and_one_trial(study, capsys):
    work = study / "work"
    code, out, _ = predicted(capsys, study, work, study / "pets.csv", "--regime=scratch")
    assert code == 0 and out.splitlines()[0] == "chip,ill,ill=ja,ill=ja std"
    digest = mtl.results(work)["hash"].iloc[0]
    code, out, _ = predicted(capsys, study, work / "trials" / digest, study / "pets.csv")
    assert code == 0 and out.splitlines()[0] == "chip,ill,ill=ja" and len(out.splitlines()) == 301


def test_what_training_never_saw_is_said(study, capsys):
    new = pets()[:20].assign(breed=["griffin"] * 5 + ["pug"] * 15, colour="red")
    new.to_csv(study / "new.csv", index=False)  # Commas part the cells here, numbers with commas are quoted.
    code, out, err = predicted(capsys, study, study / "work", study / "new.csv")
    assert code == 0 and len(out.splitlines()) == 21
    assert 'column "breed": 5 cells hold "griffin", not seen in training: 0 for every level' in err
    with pytest.warns(UserWarning, match='"griffin", not seen in training'):
        mtl.advised(study / "work").predict(new)


def test_an_array_of_another_shape_is_one_sentence(study, capsys):
    np.savez(study / "x.npz", x=np.eye(3))
    code, out, err = predicted(capsys, study, study / "work", study / "x.npz")
    assert (code, out) == (2, "")
    assert err.splitlines() == ["mtl: x: shape (3, 3): must be (n, 5), as in training"]


def test_what_is_wrong_is_said_before_jax_begins(study):
    new = pets()[:5].drop(columns="breed").assign(weight=["1,5", "heavy", "light", "2", "3"])
    new.to_csv(study / "bad.csv", sep=";", index=False)
    pets()[:5].assign(weight=["1,5", "heavy", "light", "2", "3"]).to_csv(study / "worse.csv", sep=";", index=False)
    (study / "empty").mkdir(exist_ok=True)
    cases = [
        (
            (study / "work", study / "bad.csv"),
            'file "bad.csv", has no column "breed" (category), which the model needs',
        ),
        (
            (study / "work", study / "worse.csv"),
            'line 3 and 1 more, column "weight": "heavy", "light": must be a number with a decimal comma',
        ),
        ((study / "work", study / "none.csv"), 'none.csv": does not exist'),
        ((study / "empty", study / "pets.csv"), "is empty: run `mtl sweep"),
        ((study / "work", study / "pets.csv", "--regime=scrach"), 'no such row: did you mean "scratch"?'),
        ((study / "work", study / "pets.csv", "--sweep=other"), "has no such sweep"),
        ((study / "work", study / "pets.csv", "--out=nowhere/out.csv"), "its folder does not exist"),
    ]
    code = (
        "import sys, json; from mtl.cli import main\n"
        "for words in json.loads(sys.argv[1]): print(main(['predict', *words]), 'jax' in sys.modules, flush=True)"
    )
    words = json.dumps([[str(w) for w in arguments] for arguments, _ in cases])
    done = subprocess.run([sys.executable, "-c", code, words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["2 False"] * len(cases)
    for (_, sentence), line in zip(cases, done.stderr.splitlines(), strict=True):
        assert sentence in line


@pytest.mark.slow
def test_numbers_in_a_plain_table_and_several_targets(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(
        kind=np.array(["low", "mid", "top"])[np.digitize(x[:, 0], [-0.4, 0.4])], size=3 * x[:, 1] + 7, who=1
    )
    frame.loc[::9, "a"] = np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    options = {"path": str(tmp_path / "t.csv"), "labels": ("kind", "size"), "ignore": "who", "missing_inputs": "flag"}
    c = config(tmp_path / "t.csv", options=options, source=(), targets=("kind", "size"), test_size=50)
    c.data.name, c.data.target, c.data.rows, c.data.source_size, c.data.source_val_size = "csv", "", "shared", 0, 0
    entries = product(sweep("regime", ("scratch", "multitask")), sweep("seed", range(2)))
    mtl.run_sweep(c, entries, tmp_path / "work", quiet=True)
    new = frame[["c", "a", "b"]].iloc[:9]
    new.to_csv(tmp_path / "new.csv", index=False)
    for regime in ("scratch", "multitask"):
        code, out, err = predicted(capsys, tmp_path, tmp_path / "work", tmp_path / "new.csv", f"--regime={regime}")
        assert code == 0, err
        (tmp_path / "out.csv").write_text(out)
        found = pd.read_csv(tmp_path / "out.csv")
        classes = ["kind=low", "kind=mid", "kind=top"]
        spreads = [f"{name} std" for name in classes]
        assert list(found) == ["kind", *classes, *spreads, "size", "size std"]
        np.testing.assert_allclose(found[classes].sum(axis=1), 1, rtol=1e-5)
        assert (found["kind"] == np.array(["low", "mid", "top"])[found[classes].to_numpy().argmax(axis=1)]).all()
        pd.testing.assert_frame_equal(mtl.advised(tmp_path / "work", regime=regime).predict(new), found, rtol=1e-5)


def test_help_has_its_own_examples(capsys):
    with pytest.raises(SystemExit) as left:
        main(["predict", "--help"])
    assert left.value.code == 0
    assert "mtl predict runs/pets new.csv -o out.csv" in capsys.readouterr().out
