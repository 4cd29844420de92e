"""A small study from config to results, and everything that must hold when it is run again."""

import shutil

import jax
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

import mtl
from mtl import data
from mtl.config import ConfigError, flatten, load
from mtl.report.publish import analyses_of, publish, publish_page, publish_tables
from mtl.sweep import Hyper, chain, product, sweep, sweeps_of, zipit
from mtl.sweep.cache import enable_cache
from mtl.sweep.execute import execute
from mtl.sweep.launch import Silent, launch, preview
from mtl.sweep.plan import make_plan
from mtl.sweep.store import StoreError, Workdir
from mtl.train import compiled
from mtl.train.placement import VMAP
from tests.sweep.by_hand import change, forget, results

CONFIG = """
from mtl.config import default
from mtl.sweep import product, sweep

def get_config():
    c = default()
    c.name = "small"
    c.model.options = {"hidden": (8,)}
    c.source.total_steps = 12
    c.target.total_steps = 8
    c.evaluations = 2
    c.tune.source_lr = (1e-3, 1e-2)
    c.tune.seeds = (0,)
    return c

def sweep_even():
    '''Is it even?'''
    return product(
        sweep("regime", ("scratch", "linear_probe", "finetune", "multitask")),
        sweep("data.target_size", (20, 50)), sweep("seed", range(2)), sweep("lr", (1e-3, 1e-2)),
    )
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.py").write_text(CONFIG)
    config, module = load(str(folder / "small.py"))
    base, entries = flatten(config), sweeps_of(module)["even"]()
    workdir = Workdir(folder / "work")
    (summary,) = launch(base, {"even": entries}, workdir, jobs=0, config_file=None, display=Silent())
    return base, entries, workdir, summary, folder


def copy_of(workdir, to):
    shutil.copytree(workdir.path, to)
    return Workdir(to)


def model_bytes(workdir, digest):
    return (workdir.trial(digest) / "model.safetensors").read_bytes()


def lose(workdir, digest):
    """Remove all that there is of a trial."""
    forget(workdir.path, digest)
    shutil.rmtree(workdir.trial(digest))


def test_every_trial_has_a_result_and_running_again_runs_nothing(study):
    base, entries, workdir, summary, _ = study
    assert (summary.ran, summary.reused, summary.failed) == (32, 0, {})
    (again,) = launch(base, {"even": entries}, workdir, jobs=0, config_file=None, display=Silent())
    assert (again.ran, again.reused) == (0, 32)


def test_results_agree_with_scikit_learn(study):
    workdir = study[2]
    frame = mtl.results(workdir.path)
    assert set(frame["status"]) == {"done"}
    assert frame.groupby(["regime", "data.target_size", "seed"])["chosen"].sum().eq(1).all()
    for digest, row in frame[frame["chosen"]].set_index("hash").iloc[::3].iterrows():
        arrays = workdir.predictions(digest, "even")
        p = 1 / (1 + np.exp(-arrays["outputs"][:, 0].astype(np.float64)))
        assert row["test_accuracy"] == pytest.approx(accuracy_score(arrays["labels"], p > 0.5))
        assert row["test_log_loss"] == pytest.approx(log_loss(arrays["labels"], p), rel=1e-4)
    curves = mtl.results(workdir.path, "curves")
    assert {"identity", "even"} == set(curves["task"])
    predictions = mtl.results(workdir.path, "predictions")
    assert len(predictions) == 16 * 500 and set(predictions["task"]) == {"even"}


def test_a_loaded_trial_predicts_what_was_tested(study):
    workdir, digest = study[2], study[3].sweep.members[-1].trial.hash
    arrays = workdir.predictions(digest, "even")
    x = data.load("digits").x[arrays["rows"]]
    p = mtl.load(workdir.trial(digest)).predict(x)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-arrays["outputs"][:, 0])), atol=1e-6)
    assert mtl.load(workdir.trial(digest)).predict(x, "identity").shape == (500, 10)


@pytest.mark.parametrize("whole_trial", [True, False], ids=["all of it", "its directory"])
def test_a_missing_trial_alone_is_run_again_with_the_same_bits(study, tmp_path, whole_trial):
    base, entries, whole, summary, _ = study
    workdir = copy_of(whole, tmp_path / "work")
    digest = next(m.trial.hash for m in summary.sweep.members if m.changes["regime"] == "finetune")
    before = model_bytes(workdir, digest)
    if whole_trial:
        forget(workdir.path, digest)
    shutil.rmtree(workdir.trial(digest))
    shutil.rmtree(workdir.path / "prefixes")  # The shared source phase is trained anew, alone.
    (again,) = launch(base, {"even": entries}, Workdir(workdir.path), jobs=0, config_file=None, display=Silent())
    assert (again.ran, again.reused) == (1, 31)
    assert model_bytes(workdir, digest) == before


@pytest.mark.slow
def test_a_grown_grid_runs_only_what_is_new(study, tmp_path):
    base, entries, whole, _, _ = study
    workdir = copy_of(whole, tmp_path / "work")
    more = [*entries, *({**e, "seed": 2} for e in entries if e["seed"] == 0)]
    (grown,) = launch(base, {"even": more}, workdir, jobs=0, config_file=None, display=Silent())
    assert (grown.ran, grown.reused) == (16, 32)


@pytest.mark.slow
def test_worker_processes_give_the_same_bits(study, tmp_path):
    base, entries, whole, summary, folder = study
    few = [e for e in entries if e["lr"] == 1e-2]
    workdir = Workdir(tmp_path / "work")
    launch(base, {"even": few}, workdir, jobs=2, config_file=str(folder / "small.py"), display=Silent())
    for member in summary.sweep.members:
        if member.changes["lr"] == 1e-2:
            assert model_bytes(workdir, member.trial.hash) == model_bytes(whole, member.trial.hash)


def test_the_plan_counts_each_distinct_phase_once(study, tmp_path):
    base, entries, *_ = study
    plan = preview(base, "even", entries, Workdir(tmp_path / "none")).plan
    # Source once a seed; probe and finetune a target phase each; scratch and multitask the whole budget.
    assert plan.steps() == 2 * 12 + 2 * 8 * 8 + 2 * 8 * 20
    assert plan.steps_unshared() == 4 * 8 * 20


def test_the_chosen_rate_is_the_one_with_the_least_validation_loss(study):
    workdir = study[2]
    (analysis,) = analyses_of(workdir)
    frame = mtl.results(workdir.path)
    best = frame.loc[frame.groupby(["regime", "data.target_size", "seed"])["val_score"].idxmin()]
    scores = analysis.scores
    for (regime, size), part in best.groupby(["regime", "data.target_size"]):
        g, s = scores.regimes.index(regime), scores.sizes.index(float(size))
        assert scores.values[g, s].mean(axis=1) == pytest.approx(part.sort_values("seed")["test_accuracy"].to_numpy())
        assert analysis.cells[regime][float(size)].mean == pytest.approx(part["test_accuracy"].mean())
    assert scores.question == "Is it even?" or study[0]["report.question"] == ""


def test_missing_cells_and_those_made_by_other_code(study, tmp_path):
    base, entries, whole, summary, _ = study
    workdir = copy_of(whole, tmp_path / "work")
    lose(workdir, summary.sweep.members[0].trial.hash)
    (analysis,) = analyses_of(Workdir(workdir.path))
    assert analysis.scores.missing.sum() == 1
    digest = summary.sweep.members[2].trial.hash
    right = results(workdir.path)[digest]
    old = {"sha256": "0" * 64, "of": "mtl 0"}
    change(workdir.path, digest, lambda found: found | {"fingerprint": found["fingerprint"] | {"code": old}})
    workdir = Workdir(workdir.path)
    (analysis,) = analyses_of(workdir)
    assert analysis.scores.missing.sum() == 2
    (said,) = workdir.news("left out")
    assert said == f"1 trial is stale: mtl's code changed (mtl {mtl.__version__}); left out"
    (again,) = launch(base, {"even": entries}, Workdir(workdir.path), jobs=0, config_file=None, display=Silent())
    assert (again.ran, again.reused) == (2, 30)
    again = results(workdir.path)[digest]
    assert all(again[k] == right[k] for k in ("fingerprint", "test", "val_score"))


def test_page_and_tables_are_written(study, tmp_path):
    workdir = copy_of(study[2], tmp_path / "work")
    analyses = analyses_of(workdir)
    assert len(publish_tables(workdir, analyses[0])) == 16
    text = publish_page(workdir, analyses, "mtl report").read_text()
    assert "https://" not in text and "http://" not in text.replace("http://www.w3.org", "")
    assert "linear_probe" in text
    for said in (
        "digits: 1,797 rows, inputs 64 numbers.",
        "891 positive",
        "source, then a fresh head on the frozen trunk",
    ):
        assert said in text
    for folded in ("Learning curves of training and validation", "Calibration", "Other metrics", "Trained on "):
        assert folded in text


def test_what_is_published_is_written_again_only_if_results_change(study, tmp_path):
    workdir = copy_of(study[2], tmp_path / "copy")
    first = publish(workdir, analyses_of(workdir), "test")
    written = {path: path.stat().st_mtime_ns for path in first}
    assert first == publish(workdir, analyses_of(workdir), "test")
    assert written == {path: path.stat().st_mtime_ns for path in first}
    page, figure = first[-1], first[0]
    figure.unlink()
    assert first == publish(workdir, analyses_of(workdir), "test")
    assert figure.is_file() and page.stat().st_mtime_ns == written[page]
    digest = workdir.study()["sweeps"]["even"]["trials"][0]["hash"]
    lose(workdir, digest)
    changed = Workdir(workdir.path)
    publish(changed, analyses_of(changed), "test")
    assert page.stat().st_mtime_ns > written[page]
    assert first[1].stat().st_mtime_ns > written[first[1]]


def test_another_study_is_refused(study):
    with pytest.raises(StoreError, match='belongs to the study "small"'):
        study[2].open("other")


def test_combinators():
    a, b = sweep("a", [1, 2]), sweep("b", [3, 4])
    assert len(product(a, b)) == 4
    assert zipit(a, b) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    assert chain(a, b) == [{"a": 1}, {"a": 2}, {"b": 3}, {"b": 4}]
    for combine in (product, zipit):
        with pytest.raises(ConfigError, match='"a" is changed by two parts'):
            combine(a, a)


def test_get_hyper():
    hyper = Hyper()
    found = hyper.product(
        [
            hyper.chainit([hyper.fixed("config.model", "S"), hyper.fixed("config.model", "B")]),
            hyper.zipit([hyper.sweep("config.lr", [0.1, 0.2]), hyper.sweep("config.wd", [1, 2])]),
        ]
    )
    assert len(found) == 4
    assert found[0] == {"config.model": "S", "config.lr": 0.1, "config.wd": 1}


def test_a_shared_phase_has_the_bits_of_the_same_phase_trained_for_one_trial_alone(study, tmp_path):
    _, _, workdir, summary, _ = study
    member = next(m for m in summary.sweep.members if m.changes["regime"] == "finetune")
    alone = Workdir(tmp_path / "alone")
    execute(make_plan([member.trial]), alone)
    assert model_bytes(alone, member.trial.hash) == model_bytes(workdir, member.trial.hash)


def test_a_half_written_shared_phase_is_trained_anew(study, tmp_path):
    """A crash leaves the old name or none; a file that was cut by something else is not believed."""
    _, _, whole, summary, _ = study
    workdir = copy_of(whole, tmp_path / "copy")
    member = next(m for m in summary.sweep.members if m.changes["regime"] == "finetune")
    plan = make_plan([member.trial])
    prefix = workdir.prefix(plan.chains[member.trial.hash][0])
    content = prefix.read_bytes()
    for broken in (content[: len(content) // 2], b""):
        prefix.write_bytes(broken)
        lose(workdir, member.trial.hash)
        execute(plan, Workdir(workdir.path))
        assert model_bytes(workdir, member.trial.hash) == model_bytes(whole, member.trial.hash)
        assert len(prefix.read_bytes()) > len(content) // 2


@pytest.mark.slow
def test_side_by_side_a_missing_trial_runs_again_at_the_width_it_had(study, tmp_path):
    base, entries, _, _, _ = study
    how = {"jobs": 0, "config_file": None, "display": Silent(), "placement": VMAP}
    workdir = Workdir(tmp_path / "work")
    (summary,) = launch(base, {"even": entries}, workdir, **how)
    results = [workdir.result(m.trial.hash) for m in summary.sweep.members]
    assert {r["placement"] for r in results} == {"vmap"}
    widths = {p["width"] for r in results for p in r["phases"]}
    assert widths > {2} and max(widths) <= 16
    for member in (summary.sweep.members[0], summary.sweep.members[-1]):
        before = model_bytes(workdir, member.trial.hash)
        lose(workdir, member.trial.hash)
        shutil.rmtree(workdir.path / "prefixes", ignore_errors=True)
        launch(base, {"even": entries}, Workdir(workdir.path), **how)
        assert model_bytes(workdir, member.trial.hash) == before
    # A table of two placements is refused.
    lose(workdir, summary.sweep.members[0].trial.hash)
    launch(base, {"even": entries}, Workdir(workdir.path), jobs=0, config_file=None, display=Silent())
    with pytest.raises(StoreError, match="several placements"):
        analyses_of(Workdir(workdir.path))


def test_the_compilation_cache_is_the_users_own(tmp_path, monkeypatch):
    """It is machine code that is executed as it is: nobody else may write it, and no shared directory holds it."""
    monkeypatch.delenv("MTL_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        path = enable_cache()
        assert path == tmp_path / "mtl" / "xla"
        assert path.stat().st_mode & 0o777 == 0o700
        assert compiled.turns == path / "turns" and compiled.turns.stat().st_mode & 0o777 == 0o700
        monkeypatch.setenv("MTL_CACHE_DIR", "off")
        assert enable_cache() is None
        assert compiled.turns is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.slow
def test_a_table_of_auroc_has_intervals_over_test_examples_too(tmp_path):
    (tmp_path / "small.py").write_text(CONFIG.replace("c.evaluations = 2", 'c.evaluations = 2\n    c.metric = "auroc"'))
    config, module = load(str(tmp_path / "small.py"))
    workdir = Workdir(tmp_path / "work")
    entries = [e for e in sweeps_of(module)["even"]() if e["regime"] == "scratch" and e["data.target_size"] == 50]
    launch(flatten(config), {"even": entries}, workdir, jobs=0, config_file=None, display=Silent())
    (analysis,) = analyses_of(workdir)
    assert analysis.extra["examples"] == 500
    chosen = mtl.results(workdir.path).sort_values("val_score").groupby("seed").head(1)
    cell = analysis.cells["scratch"][50.0]
    assert cell.mean == pytest.approx(chosen["test_auroc"].mean(), abs=1e-5)
    assert 0 <= cell.low < cell.mean < cell.high <= 1
    assert any("DeLong" in note for note in analysis.scores.notes)


@pytest.mark.parametrize("grid", [(1e3, 1e4), (1e3,)])
def test_a_ridge_penalty_is_recorded(tmp_path, grid):
    """Penalties so large that more of it is worse: the least is chosen."""
    (tmp_path / "small.py").write_text(CONFIG)
    config, _ = load(str(tmp_path / "small.py"))
    config.ridge.penalties = grid
    entries = product(sweep("regime", ("ridge_probe",)), sweep("seed", range(2)))
    workdir = Workdir(tmp_path / "work")
    base = flatten(config) | {"tune.source_lr": ()}
    (summary,) = launch(base, {"even": entries}, workdir, jobs=0, config_file=None, display=Silent())
    for member in summary.sweep.members:
        source, head = workdir.result(member.trial.hash)["phases"]
        assert "penalties" not in source
        assert head["penalties"] == {"even": 1e3}
