"""Tasks without validation labels: judgements leave them out by count; where nobody is left, one error."""

import dataclasses

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from mtl import data
from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.report.collect import collect
from mtl.sweep import product, sweep
from mtl.sweep.execute import execute
from mtl.sweep.labelled import check_labels, judged
from mtl.sweep.launch import Silent, launch, preview
from mtl.sweep.plan import load_table, make_plan, split_of
from mtl.sweep.store import StoreError, Workdir
from mtl.tasks import Task

SOURCE = ("a", "b", "c")
BASE = override(
    flatten(default()),
    {
        "name": "labelled",
        "data.name": "sparse",
        "data.source": SOURCE,
        "data.target": "t",
        "data.target_size": 20,
        "data.target_pool": 60,
        "data.test_size": 100,
        "data.source_size": 200,
        "data.source_val_size": 40,
        "data.normalize": "none",
        "model.options": {"hidden": (4,)},
        "source.total_steps": 40,
        "target.total_steps": 20,
        "evaluations": 10,
        "select": "last",
        "lr": 0.05,
        "source_lr": 0.05,
        "save_model": True,
    },
)


def sparse(a=1.0, b=1.0, c=1.0):
    """Three sources and a target; of each source's labels a share is there."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 5)).astype(np.float32)
    noise = rng.normal(size=(500, 4))
    labels = {"a": x[:, 0] + noise[:, 0] > 0, "c": x[:, 2] + noise[:, 2] > 0, "t": x[:, 0] + x[:, 3] > 0}
    labels = {name: y.astype(float) for name, y in labels.items()}
    labels["b"] = np.digitize(x[:, 1] + noise[:, 1], (-0.5, 0.5)).astype(float)
    for name, share in {"a": a, "b": b, "c": c}.items():
        labels[name][rng.random(500) >= share] = np.nan
    tasks = (Task("a", "binary"), Task("b", "multiclass", num_classes=3), Task("c", "binary"), Task("t", "binary"))
    return data.make_table("sparse", x, tasks, labels)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    data.register("sparse")(sparse)
    monkeypatch.setenv("MTL_CACHE_DIR", "off")
    yield
    data.SOURCES.pop("sparse")


def trial(**changes):
    flat = override(BASE, {k.replace("__", "."): v for k, v in changes.items()})
    return resolve(flat, load_table("sparse", flat["data.options"]))


#: A share at which a task has training labels, and none in validation.
RARE = 0.02


def hides(t, *names):
    """Return whether these tasks, and only these, have no validation label; all have one in training."""
    split = split_of(t)
    assert all(split.train[name].any() for name in SOURCE)
    return {name for name in SOURCE if not split.val[name].any()} == set(names)


def seed_where(hidden, **changes):
    """Return the first replicate in which these tasks have no validation label."""
    return next(s for s in range(500) if _can(trial(seed=s, **changes)) and hides(trial(seed=s, **changes), *hidden))


def _can(t):
    try:
        return bool(split_of(t))
    except ConfigError:
        return False


def validated(workdir, t, task):
    """Return a task's validation loss of the model that was saved: in float64, with NumPy and scikit-learn."""
    table, split = load_table("sparse", t.config["data"]["options"]), split_of(t)
    kept = safetensors.numpy.load_file(workdir.trial(t.hash) / "model.safetensors")
    p = {k.removeprefix("params/"): v.astype(np.float64) for k, v in kept.items()}
    rows = np.flatnonzero(split.val[task])
    h = np.maximum(np.asarray(table.x[rows], np.float64) @ p["backbone/dense_0/kernel"] + p["backbone/dense_0/bias"], 0)
    z = h @ p[f"heads/{task}/kernel"] + p[f"heads/{task}/bias"]
    y = split.labels[task][rows]
    if z.shape[1] == 1:
        z = np.concatenate([np.zeros_like(z), z], axis=1)
    return log_loss(y, np.exp(log_softmax(z, axis=1)), labels=range(z.shape[1]))


@pytest.mark.parametrize("hidden", [(), ("b",), ("a", "c")])
def test_the_best_state_is_best_on_the_tasks_that_have_labels(hidden, tmp_path):
    options = {name: RARE if name in hidden else 1.0 for name in SOURCE}
    changes = {"data__options": options, "regime": "source", "select": "best"}
    best = trial(seed=seed_where(hidden, **changes), **changes)
    workdir = Workdir(tmp_path / "work")
    execute(make_plan([best]), workdir)
    result = workdir.result(best.hash)
    curves = result["phases"][0]["val_loss"]
    assert {name for name, curve in curves.items() if None in curve} == set(hidden)
    labelled = [name for name in SOURCE if name not in hidden]
    means = np.mean([result["phases"][0]["val_score"][name] for name in labelled], axis=0)
    assert means.argmin() > 0, "the first evaluation must not be the best one"
    assert result["status"] == "done"
    assert result["val_score"] == pytest.approx(means.min())
    # The weights that were kept are those: the losses are computed anew from the file.
    for name in labelled:
        assert validated(workdir, best, name) == pytest.approx(curves[name][means.argmin()], rel=1e-4)


#: Of each regime's phases, the tasks that judge them.
JUDGES = {
    "scratch": [("t",)],
    "source": [SOURCE],
    "linear_probe": [SOURCE, ("t",)],
    "ridge_probe": [SOURCE, ("t",)],
    "lp_ft": [SOURCE, ("t",), ("t",)],
    "multitask": [("t",)],
    "multitask_finetune": [("t",), ("t",)],
}


@given(st.sets(st.sampled_from((*SOURCE, "t"))), st.sampled_from(list(JUDGES)), st.booleans())
def test_an_error_comes_first_just_where_no_judge_has_a_label(hidden, regime, by_validation):
    choose = "validation" if by_validation else "leave_one_out"
    best, last = (trial(regime=regime, select=s, ridge__choose=choose) for s in ("best", "last"))
    split = split_of(best)
    split = dataclasses.replace(split, val={n: m & (n not in hidden) for n, m in split.val.items()})
    gone = [i for i, judges in enumerate(JUDGES[regime]) if hidden.issuperset(judges)]
    ridge = regime == "ridge_probe" and by_validation and "t" in hidden
    selected = [i for i in gone if best.phases[i].solver != "ridge"]
    for t, fails in ((best, bool(selected) or ridge), (last, ridge)):
        if fails:
            with pytest.raises(
                ConfigError, match=rf"^config\.(select|ridge\.choose) = .* replicate {t.seed} .*raise data\."
            ):
                check_labels(t, split)
        else:
            check_labels(t, split)
    for number, judges in enumerate(JUDGES[regime]):
        assert set(judged(best, split, number)) == set(judges) - hidden


HIDDEN = {"data.hide": "at_random", "data.hide_rates": {"t": 0.8}, "data.hide_in_validation": True}


def hidden_seeds():
    """Return a replicate whose target has validation labels, and one whose target has none; both can be trained."""
    found = {}
    for s in range(200):
        t = trial(seed=s, **{k.replace(".", "__"): v for k, v in HIDDEN.items()})
        if _can(t):
            found.setdefault(bool(split_of(t).val["t"].any()), s)
    return found[True], found[False]


def test_nothing_is_tuned_on_a_target_without_validation_labels(tmp_path):
    there, gone = hidden_seeds()
    base, work = override(BASE, HIDDEN | {"tune.source_lr": (0.01, 0.1), "tune.seeds": (0,)}), tmp_path / "work"
    entries = product(sweep("regime", ("scratch", "multitask")), sweep("lr", (0.01, 0.1)), sweep("seed", (there, gone)))
    for begin in (
        lambda: preview(base, "s", entries, Workdir(work)),
        lambda: launch(base, {"s": entries}, Workdir(work), jobs=0, config_file=None, display=Silent()),
    ):
        with pytest.raises(
            ConfigError, match=rf'^config\.lr: .*replicate {gone} task "t" has no validation label'
        ) as e:
            begin()
        for part in ("data.hide_in_validation = False", "data.target_size = 20", "data.val_fraction = 0.2"):
            assert part in str(e.value)
    assert not work.exists()


@pytest.mark.slow
def test_a_cell_with_one_candidate_needs_no_validation(tmp_path):
    there, gone = hidden_seeds()
    entries = product(sweep("regime", ("scratch", "random_probe")), sweep("seed", (there, gone)))
    workdir = Workdir(tmp_path / "work")
    launch(override(BASE, HIDDEN), {"s": entries}, workdir, jobs=0, config_file=None, display=Silent())
    results = [workdir.result(m["hash"]) for m in workdir.study()["sweeps"]["s"]["trials"]]
    assert [(r["status"], r["val_score"] is None) for r in results] == [("done", False), ("done", True)] * 2
    scores = collect(Workdir(workdir.path), "s")
    assert (scores.missing == 0).all()
    want = [[[r["test"]["t"]["accuracy"] for r in results[2 * g : 2 * g + 2]]] for g in range(2)]
    np.testing.assert_allclose(scores.values.mean(axis=-1), want, rtol=1e-5)


@pytest.mark.slow
def test_a_source_rate_is_tuned_on_the_tasks_with_labels_or_refused(tmp_path):
    options = {"a": 1.0, "b": RARE, "c": 1.0}
    seed = seed_where(("b",), data__options=options)
    base = override(BASE, {"data.options": options, "tune.source_lr": (1e-4, 0.05), "tune.seeds": (seed,)})
    entries = product(sweep("regime", ("scratch", "linear_probe")), sweep("seed", (seed,)))
    workdir = Workdir(tmp_path / "work")
    launch(base, {"s": entries}, workdir, jobs=0, config_file=None, display=Silent())
    tuning = workdir.study()["sweeps"]["s"]["tuning"]
    for rate, loss in tuning["val_score"].items():
        t = trial(data__options=options, seed=seed, regime="source", source_lr=float(rate), save_model=False)
        curves = workdir.result(t.hash)["phases"][0]["val_score"]
        assert loss == pytest.approx((curves["a"][-1] + curves["c"][-1]) / 2)
    assert tuning["source_lr"] == 0.05
    (said,) = workdir.study()["sweeps"]["s"]["warnings"]
    assert said.startswith("b has no validation label in 1 replicate: there, source phases are judged by their other")
    nobody = override(base, {"data.source_val_size": 0})
    with pytest.raises(ConfigError, match=r"^config\.tune\.source_lr: .*none of a, b, c .*data\.source_val_size = 0"):
        launch(nobody, {"s": entries}, Workdir(tmp_path / "no"), jobs=0, config_file=None, display=Silent())
    assert not (tmp_path / "no").exists()
    # That all diverged is another sentence.
    broken = override(base, {"tune.source_lr": (1e38, 3e38), "name": "broken"})
    with pytest.raises(StoreError, match=r"training diverged at every rate of \[1e\+38, 3e\+38\]: lower"):
        launch(broken, {"s": entries}, Workdir(tmp_path / "broken"), jobs=0, config_file=None, display=Silent())


def test_a_ridge_chosen_by_validation_needs_labels_of_each_of_its_tasks():
    regimes = {"two": ({"tasks": ("a", "b"), "trainable": "head", "solver": "ridge"}, {})}
    changes = {"regimes": regimes, "regime": "two", "data__options": {"a": 1.0, "b": RARE, "c": 1.0}}
    t = trial(seed=seed_where(("b",), **changes), ridge__choose="validation", **changes)
    with pytest.raises(
        ConfigError, match=r'^config\.ridge\.choose = "validation": .*task "b" has no.*"leave_one_out"$'
    ):
        make_plan([t])
    make_plan([trial(seed=t.seed, **changes)])


@pytest.mark.parametrize(("regime", "select"), [("scratch", "last"), ("scratch", "best"), ("source", "best")])
def test_a_state_that_gives_no_numbers_has_diverged_though_its_training_loss_was_finite(regime, select, tmp_path):
    # The one step's loss is that of the initial weights; what it leads to is not finite.
    rates = {"lr": 1e38, "source_lr": 1e38, "source__total_steps": 1, "target__total_steps": 0}
    rates["target__total_examples"] = 1  # So that the two budgets together are one update.
    t = trial(regime=regime, select=select, evaluations=1, **rates)
    workdir = Workdir(tmp_path / "work")
    execute(make_plan([t]), workdir)
    result = workdir.result(t.hash)
    assert all(np.isfinite(curve).all() for curve in result["phases"][0]["train_loss"].values())
    assert (result["status"], result["diverged_at"]) == ("diverged", {"phase": 0, "step": 1})
    assert "test" not in result


def test_r2_of_constant_test_labels_is_refused():
    t = trial(regime="scratch")
    split = split_of(t)
    flat_split = dataclasses.replace(split, labels=split.labels | {"t": np.full(500, 2.5, np.float32)})
    check_labels(t, flat_split)
    tasks = [
        task | {"kind": "regression", "metric": "r2"} if task["name"] == "t" else task for task in t.config["tasks"]
    ]
    of_r2 = dataclasses.replace(t, config=t.config | {"tasks": tasks})
    with pytest.raises(ConfigError, match=r'^config\.metric = "r2": all test labels of t are 2\.5'):
        check_labels(of_r2, flat_split)
    check_labels(of_r2, split)
