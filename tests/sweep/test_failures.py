"""What goes wrong in one pack stays there: it is written down and shown, runs again when mended, is never chosen."""

import contextlib
import json
import shutil

import flax.linen as nn
import numpy as np
import pytest

import mtl
from mtl import data, models
from mtl.cli import main
from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.data import make_table
from mtl.report.publish import analyses_of
from mtl.sweep import product, sweep
from mtl.sweep.execute import execute
from mtl.sweep.launch import Silent, launch
from mtl.sweep.plan import load_table, make_plan, trial_of
from mtl.sweep.store import FORMAT, StoreError, Workdir
from mtl.sweep.workers import total_work
from mtl.tasks import Task
from tests.sweep import by_hand
from tests.sweep.resealed import change

CAUSE = {"error": None}  # What the fragile model raises where it is traced for training.


class Fragile(nn.Module):
    """A dense layer that cannot be trained while there is a cause, and can be evaluated.

    What is compiled once is not traced again: a test whose trials have another tag has programs of its own.
    """

    always: bool = False
    tag: int = 0

    @nn.compact
    def __call__(self, x, train):
        if train and self.always:
            raise ValueError("always\nin two lines")
        if train and CAUSE["error"]:
            raise CAUSE["error"]
        return nn.relu(nn.Dense(4, name="dense")(x.reshape(x.shape[0], -1)))


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """The model has a name; commands use no cache that outlives the test, and there is no cause at first."""
    models.register("fragile")(Fragile)
    monkeypatch.setenv("MTL_CACHE_DIR", "off")
    monkeypatch.setitem(CAUSE, "error", None)
    yield
    models.MODELS.pop("fragile")


BASE = override(
    flatten(default()),
    {
        "name": "failures",
        "source.total_steps": 4,
        "target.total_steps": 4,
        "evaluations": 2,
        "select": "last",
        "optimizer.name": "sgd",
        "data.target_size": 20,
    },
)
FRAGILE = override(BASE, {"model.name": "fragile"})
REGIMES = ("scratch", "random_probe", "linear_probe")
ENTRIES = product(sweep("regime", REGIMES), sweep("data.target_size", (20, 50)), sweep("seed", range(2)))
REASON = "RuntimeError: no such program"


class Recorder(Silent):
    """A display that keeps what its meters are told."""

    def __init__(self):
        self.begun, self.told = [], []

    @contextlib.contextmanager
    def meter(self, title, work, trials):
        self.begun.append((work, trials))
        yield lambda *event: self.told.append(event)

    @property
    def totals(self):
        return tuple(float(total) for total in np.sum(self.told, axis=0))


def run(workdir, base=FRAGILE, entries=ENTRIES, display=None):
    (summary,) = launch(
        base, {"some": entries}, Workdir(workdir), jobs=0, config_file=None, display=display or Silent()
    )
    return summary


def by_regime(summary, regime):
    return [m.trial.hash for m in summary.sweep.members if m.changes["regime"] == regime]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A study in which whatever trains the backbone cannot be compiled."""
    path = tmp_path_factory.mktemp("failures") / "work"
    models.register("fragile")(Fragile)
    CAUSE["error"] = RuntimeError("no such program\nthat XLA could compile")
    display = Recorder()
    summary = run(path, display=display)
    CAUSE["error"] = None
    return path, summary, display


@pytest.fixture
def copied(broken, tmp_path):
    shutil.copytree(broken[0], tmp_path / "work")
    return tmp_path / "work"


def test_a_pack_that_cannot_run_fails_its_trials_and_the_others_finish(broken):
    path, summary, _ = broken
    workdir = Workdir(path)
    assert (summary.ran, summary.reused) == (12, 0)
    bad = {*by_regime(summary, "scratch"), *by_regime(summary, "linear_probe")}
    assert summary.failed == dict.fromkeys(bad, REASON)
    for member in summary.sweep.members:
        digest = member.trial.hash
        if digest in bad:
            # A trial fails by its source phase as by its own.
            assert workdir.result(digest) is None
            assert workdir.failure(digest) == REASON
            written = json.loads((workdir.trial(digest) / "failed.json").read_text())
            assert "Traceback" in written.pop("traceback")
            assert len(written.pop("sha256")) == 64
            assert written == {"format": FORMAT, "config": member.trial.config, "error": REASON}
            assert [p.name for p in workdir.trial(digest).iterdir()] == ["failed.json"]
        else:
            assert workdir.result(digest)["status"] == "done"
            assert workdir.failure(digest) is None
            assert not (workdir.trial(digest) / "failed.json").exists()


def test_progress_is_told_of_every_trial_once(broken):
    path, summary, display = broken
    plan, nowhere = make_plan([m.trial for m in summary.sweep.members]), Workdir(path / "nowhere")
    assert display.begun == [(total_work(plan, nowhere), 12)]
    probes = [m.trial for m in summary.sweep.members if m.changes["regime"] == "random_probe"]
    done = total_work(make_plan(probes), nowhere)
    assert display.totals == (done, 4, 8)


def test_status_counts_failures_and_says_why(broken, capsys):
    assert main(["status", str(broken[0]), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["sweeps"]["some"]
    assert {k: counts[k] for k in ("trials", "done", "diverged", "failed", "missing")} == {
        "trials": 12, "done": 4, "diverged": 0, "failed": 8, "missing": 0
    }  # fmt: skip
    assert counts["reasons"] == {REASON: 8}
    assert main(["status", str(broken[0])]) == 0
    text = capsys.readouterr().out
    assert "some: 4 done, 8 failed of 12 trials" in text
    assert f"8 failed: {REASON}" in text


def test_results_and_tables_mark_what_failed_and_what_is_missing(broken, copied, capsys):
    frame = mtl.results(copied).set_index("hash")
    assert (frame["status"] == "failed").sum() == 8
    assert set(frame["error"].dropna()) == {REASON}
    # A trial that nobody has run yet is missing, and has not failed.
    summary = broken[1]
    for digest in [m.trial.hash for m in summary.sweep.members if m.changes["regime"] == "linear_probe"][:2]:
        shutil.rmtree(copied / "trials" / digest)
    digest = by_regime(summary, "random_probe")[0]
    by_hand.forget(copied, digest)
    shutil.rmtree(copied / "trials" / digest)
    assert mtl.results(copied)["status"].value_counts().to_dict() == {"failed": 6, "done": 3, "missing": 3}
    assert main(["table", str(copied), "--kind=result", "--format=json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    texts = {row[0]["text"]: [cell["text"] for cell in row[1:]] for row in found["rows"]}
    assert texts["scratch"] == ["failed", "failed"]
    assert texts["linear_probe"] == ["—", "failed"]
    probe = next(row for row in found["rows"] if row[0]["text"] == "random_probe")
    assert [cell["note"] for cell in probe[1:]] == ["1/2", ""]
    counts = {(r["regime"], r["n"]): (r["replicates"], r["missing"], r["failed"]) for r in found["records"]}
    assert counts["scratch", 20] == (0, 2, 2)
    assert counts["linear_probe", 20] == (0, 2, 0)
    assert counts["random_probe", 20] == (1, 1, 0)
    assert counts["random_probe", 50] == (2, 0, 0)
    for name in ("console", "markdown", "latex", "html", "csv"):
        assert main(["table", str(copied), "--kind=result", f"--format={name}"]) == 0
        assert ("failed" in capsys.readouterr().out) or name == "csv"


def test_running_again_runs_what_failed_and_nothing_else(broken, copied):
    probes = by_regime(broken[1], "random_probe")
    kept, stamps = by_hand.results(copied), by_hand.stamps(copied)
    assert kept.keys() == set(probes)
    CAUSE["error"] = RuntimeError("another reason")
    display = Recorder()
    again = run(copied, display=display)
    assert (again.ran, again.reused) == (8, 4)
    assert set(again.failed.values()) == {"RuntimeError: another reason"}
    assert display.totals == (0, 0, 8)
    CAUSE["error"] = None
    display = Recorder()
    mended = run(copied, display=display)
    assert (mended.ran, mended.reused, mended.failed) == (8, 4, {})
    assert display.totals == (display.begun[0][0], 8, 0)
    assert set(mtl.results(copied)["status"]) == {"done"}
    assert all(Workdir(copied).failure(m.trial.hash) is None for m in mended.sweep.members)
    assert {d: by_hand.results(copied)[d] for d in probes} == kept
    assert {d: by_hand.stamps(copied)[d] for d in probes} == stamps
    (analysis,) = analyses_of(Workdir(copied))
    assert analysis.scores.missing.sum() == analysis.scores.failed.sum() == 0
    final = run(copied)
    assert (final.ran, final.reused) == (0, 12)


def test_a_trial_whose_directory_somebody_removed_fails_as_any_other(tmp_path, monkeypatch):
    """It is to run again: that it has a result from before hides no failure."""
    work, entries = tmp_path / "work", product(sweep("regime", ("scratch",)), sweep("seed", range(2)))
    digest = run(work, BASE, entries).sweep.members[0].trial.hash
    shutil.rmtree(work / "trials" / digest)

    def breaks(*_, **__):
        raise RuntimeError("no such program")

    with monkeypatch.context() as patch:
        patch.setattr("mtl.sweep.execute._train", breaks)
        assert run(work, BASE, entries).failed == {digest: REASON}
    again = run(work, BASE, entries)
    assert (again.ran, again.reused, again.failed) == (1, 1, {})
    assert sorted(p.name for p in (work / "trials" / digest).iterdir()) == ["model.safetensors"]


CONFIG = """
from mtl.config import default
from mtl.sweep import product, sweep

def get_config():
    c = default()
    c.name = "failures"
    c.model.name = "fragile"
    c.model.options = {"always": True}
    c.source.total_steps = c.target.total_steps = 4
    c.evaluations = 2
    c.optimizer.name = "sgd"
    c.data.target_size = 20
    return c

def sweep_some():
    return product(sweep("regime", ("scratch", "random_probe")), sweep("seed", range(2)))
"""


def test_through_the_command_line_failures_give_exit_code_1_and_a_reason(tmp_path, capsys):
    (tmp_path / "c.py").write_text(CONFIG)
    command = [f"--config={tmp_path / 'c.py'}", f"--workdir={tmp_path / 'work'}"]
    assert main(["sweep", *command, "--jobs=0"]) == 1
    captured = capsys.readouterr()
    assert "some: 4 trials run, 0 re-used" in captured.err
    told = [line for line in captured.err.splitlines() if line.startswith("mtl: trial ")]
    assert len(told) == 2
    assert all(line.endswith("failed: ValueError: always") for line in told)
    assert "failed" in captured.out
    assert main(["run", *command, "--config.regime=scratch", "--quiet"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "mtl: the trial failed: ValueError: always\n")


def test_if_all_trials_of_a_sweep_fail_the_others_have_their_tables(tmp_path, capsys):
    more = '\n\ndef sweep_bad():\n    return product(sweep("regime", ("scratch",)), sweep("seed", range(2)))\n'
    (tmp_path / "c.py").write_text(CONFIG.replace("sweep_some", "sweep_good") + more)
    work = tmp_path / "work"
    command = ["sweep", f"--config={tmp_path / 'c.py'}", f"--workdir={work}", "--jobs=0"]
    # Nothing but failures: no table, no page, and the reason is the last that is said.
    assert main([*command, "--sweep=bad"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    *_, why, reason, again = captured.err.splitlines()
    assert why.endswith("there is no table of sweep bad: of 2 trials 2 failed and 0 diverged, and no cell is complete")
    assert reason.endswith("failed: ValueError: always") and again.endswith("failed: ValueError: always")
    assert "to the end" not in captured.err
    assert not (work / "report.html").exists()
    assert main(["table", str(work)]) == 2
    assert "there is no table of sweep bad" in capsys.readouterr().err
    # Beside a sweep that has results.
    assert main([*command, "--sweep=all"]) == 1
    captured = capsys.readouterr()
    assert "random_probe" in captured.out
    assert f"report  {work / 'report.html'}" in captured.out
    assert "there is no table of sweep bad" in captured.err
    assert (work / "report.html").is_file()
    assert {p.name.split("-")[0] for p in (work / "figures").iterdir()} == {"good"}
    assert {p.name.split("-")[0] for p in (work / "tables").iterdir()} == {"good"}


def test_an_option_of_a_model_that_cannot_be_trained_fails_its_trials_only(tmp_path):
    table = load_table("digits", {})
    good, bad = (
        resolve(override(FRAGILE, {"regime": "scratch", "model.options": {"always": always, "tag": 1}}), table)
        for always in (False, True)
    )
    workdir = Workdir(tmp_path / "work")
    execute(make_plan([bad, good]), workdir)
    assert workdir.result(good.hash)["status"] == "done"
    assert workdir.failure(good.hash) is None
    assert workdir.result(bad.hash) is None
    assert workdir.failure(bad.hash) == "ValueError: always"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_are_not_finite_are_refused_before_anything_is_run(tmp_path, monkeypatch, value):
    x = np.zeros((100, 4), np.float32)
    x[7, 2] = value
    labels = {"even": np.arange(100) % 2, "identity": np.arange(100) % 10}
    tasks = (Task("identity", "multiclass", num_classes=10), Task("even", "binary"))
    name = f"holed_{value}"
    monkeypatch.setitem(data.SOURCES, name, lambda: make_table("holed", x, tasks, labels))
    work = tmp_path / "work"
    with pytest.raises(ConfigError, match=rf"^config.data: .*{value} in row 7: inputs must be finite"):
        run(work, override(BASE, {"data.name": name}))
    assert not work.exists()


# --- diverging ---

MLP = override(BASE, {"model.options": {"hidden": (4,)}, "target.total_steps": 8})


def trials(*changes, base=MLP):
    return [trial_of(override(base, c)) for c in changes]


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    path = tmp_path_factory.mktemp("diverged") / "work"
    entries = product(sweep("regime", ("scratch", "finetune")), sweep("seed", range(2)), sweep("lr", (1e-2, 1e25)))
    return path, run(path, MLP, entries)


def test_a_diverging_trial_has_a_result_that_says_where(diverged):
    path, summary = diverged
    workdir = Workdir(path)
    assert (summary.ran, summary.failed) == (8, {})
    for member in summary.sweep.members:
        result = workdir.result(member.trial.hash)
        if member.changes["lr"] == 1e-2:
            assert (result["status"], result["diverged_at"]) == ("done", None)
            assert np.isfinite(result["val_score"])
            continue
        assert result["status"] == "diverged"
        assert "test" not in result
        assert result["diverged_at"]["phase"] == (1 if member.changes["regime"] == "finetune" else 0)
        assert 1 <= result["diverged_at"]["step"] < 8  # The first loss is log 2, whatever the rate.


def test_it_diverges_at_the_first_step_whose_loss_is_not_finite(diverged, tmp_path):
    path, summary = diverged
    member = next(m for m in summary.sweep.members if m.changes["lr"] == 1e25 and m.changes["regime"] == "scratch")
    step = Workdir(path).result(member.trial.hash)["diverged_at"]["step"]
    # Cut well before that step, the trial ends well. Cut right before it, every loss of its training is finite, and
    # what it leads to gives no numbers; cut after it, it has diverged there and stays so.
    workdir = Workdir(tmp_path / "work")
    only = {"source.total_steps": 0, "source.total_examples": 1}  # Too little for an update.
    cut = trials(*({**member.changes, **only, "target.total_steps": n} for n in (step - 1, step, step + 1)))
    execute(make_plan(cut), workdir)
    well, before, after = (workdir.result(t.hash) for t in cut)
    assert (well["status"], well["diverged_at"]) == ("done", None)
    assert all(map(np.isfinite, *before["phases"][0]["train_loss"].values())) and before["val_score"] is None
    for result in before, after:
        assert (result["status"], result["diverged_at"]) == ("diverged", {"phase": 0, "step": step})


def test_a_diverged_trial_is_done_and_is_not_run_again(diverged, tmp_path, capsys):
    shutil.copytree(diverged[0], tmp_path / "work")
    entries = [m.changes for m in diverged[1].sweep.members]
    again = run(tmp_path / "work", MLP, entries)
    assert (again.ran, again.reused, again.failed) == (0, 8, {})
    assert main(["status", str(tmp_path / "work")]) == 0
    assert "some: 4 done, 4 diverged of 8 trials" in capsys.readouterr().out
    frame = mtl.results(tmp_path / "work")
    assert frame.groupby("lr")["status"].unique().str[0].to_dict() == {1e-2: "done", 1e25: "diverged"}
    assert frame.loc[frame["status"] == "diverged", "test_accuracy"].isna().all()


def test_a_diverged_trial_is_never_chosen(diverged, tmp_path):
    (analysis,) = analyses_of(Workdir(diverged[0]))
    assert np.unique(analysis.scores.chosen).tolist() == [1e-2]
    assert analysis.scores.missing.sum() == 0
    # Not even where its last validation loss would be the least of all.
    shutil.copytree(diverged[0], tmp_path / "work")
    for digest, result in by_hand.results(tmp_path / "work").items():
        if result["status"] == "diverged":
            by_hand.change(tmp_path / "work", digest, lambda content: content | {"val_score": 0.0})
    (analysis,) = analyses_of(Workdir(tmp_path / "work"))
    assert np.unique(analysis.scores.chosen).tolist() == [1e-2]


def test_a_cell_of_which_every_candidate_diverged_has_failed(diverged, tmp_path):
    shutil.copytree(diverged[0], tmp_path / "work")

    def keep(study):
        entry = study["sweeps"]["some"]
        entry["trials"] = [
            t for t in entry["trials"] if t["changes"]["lr"] == 1e25 or t["changes"]["regime"] == "scratch"
        ]
        return study

    change(tmp_path / "work" / "study.json", keep)
    (analysis,) = analyses_of(Workdir(tmp_path / "work"))
    cells = {name: analysis.cells[name][20.0] for name in ("scratch", "finetune")}
    assert (cells["scratch"].replicates, cells["scratch"].failed) == (2, 0)
    assert (cells["finetune"].replicates, cells["finetune"].failed) == (0, 2)


def test_a_rate_of_the_source_at_which_it_diverges_is_not_taken(tmp_path):
    base = override(MLP, {"tune.source_lr": (1e-2, 1e25), "tune.seeds": (0, 1)})
    entries = product(sweep("regime", ("finetune",)), sweep("seed", range(1)))
    summary = run(tmp_path / "work", base, entries)
    assert summary.sweep.base["source_lr"] == 1e-2
    tuning = Workdir(tmp_path / "work").study()["sweeps"]["some"]["tuning"]
    assert tuning["source_lr"] == 1e-2
    with pytest.raises(StoreError, match=r"training diverged.* at every rate") as error:
        run(tmp_path / "none", override(base, {"tune.source_lr": (1e25, 1e26)}), entries)
    assert "lower config.tune.source_lr" in str(error.value)


def test_what_is_best_on_validation_is_chosen_by_that_validation_loss(tmp_path):
    changes = {"regime": "scratch", "select": "best", "lr": 0.3, "data.target_size": 50, "optimizer.name": "adam"}
    (best,) = trials(changes | {"source.total_steps": 40, "target.total_steps": 60, "evaluations": 3})
    workdir = Workdir(tmp_path / "work")
    execute(make_plan([best]), workdir)
    result = workdir.result(best.hash)
    curve = result["phases"][0]["val_score"]["even"]
    assert min(curve) < curve[-1]
    assert result["val_score"] == min(curve)


@pytest.mark.parametrize("error", [TypeError, AssertionError, KeyError, AttributeError])
def test_whatever_a_users_model_raises_fails_its_own_trials_only(tmp_path, monkeypatch, error):
    good, bad = (
        resolve(override(FRAGILE, {"regime": r, "model.options": {"tag": 5}}), load_table("digits", {}))
        for r in ("random_probe", "scratch")
    )
    monkeypatch.setitem(CAUSE, "error", error("no such program"))
    workdir = Workdir(tmp_path / "work")
    execute(make_plan([bad, good]), workdir)
    assert workdir.result(good.hash)["status"] == "done"
    assert workdir.failure(bad.hash).startswith(error.__name__)
