"""Tasks that differ in their names alone share programs and packs, and nothing of one reaches another."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import mtl
from mtl.config import default, flatten, override, resolve
from mtl.data import SOURCES, make_table, register
from mtl.models import build, numbered
from mtl.sweep import evaluate
from mtl.sweep import execute as execute_module
from mtl.sweep.execute import execute
from mtl.sweep.plan import load_table, make_plan
from mtl.sweep.store import Workdir
from mtl.tasks import Task
from mtl.train import loop, pack
from mtl.train.compiled import Compiled
from mtl.train.placement import MAP

#: Not in the order of the alphabet, and one is the number that another has in programs.
TARGETS = ("pear", "fig", "apple", "0")


@register("fruit")
def fruit(rows=400):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 5)).astype(np.float32)
    labels = {name: (x @ rng.normal(size=5) > 0).astype(float) for name in TARGETS}
    for y in labels.values():
        y[rng.random(rows) < 0.3] = np.nan
    labels["weight"] = x @ rng.normal(size=5)
    tasks = [Task(name, "binary", metric="auroc") for name in TARGETS] + [Task("weight", "regression")]
    return make_table("fruit", x, tasks, labels)


@pytest.fixture(autouse=True, scope="module")
def _registered():
    yield
    SOURCES.pop("fruit", None)


def trial(target, regime="scratch", **changes):
    base = {
        **{"name": "fruit", "data.name": "fruit", "data.source": (), "data.targets": TARGETS, "data.target": target},
        **{"data.target_size": 60, "data.target_pool": 120, "data.test_size": 120, "batch_size": 8, "evaluations": 2},
        **{"model.options": {"hidden": (6,)}, "model.head_init": "lecun_normal", "optimizer.rates": {"heads/.*": 0.5}},
        **{"source.total_steps": 6, "target.total_steps": 6, "regime": regime, "patience": 0},
    }
    return resolve(override(flatten(default()), base | changes), load_table("fruit", {}))


def forget():
    """Forget all programs, as if nothing had run before."""
    for make in (pack.init_fn, pack.advance_fn, pack.evaluate_fn, pack.predict_fn, evaluate._test_fn):
        make.cache_clear()
    execute_module._begun.cache_clear()


def run(trials, folder):
    """Return (how many programs were compiled, the work directory) of some trials."""
    before = Compiled.compilations
    execute(make_plan(trials), Workdir(folder))
    return Compiled.compilations - before, Workdir(folder)


def outcome(workdir, digest, task):
    """Return all that a trial came to on its task, bit by bit."""
    result, model = workdir.result(digest), mtl.load(workdir.trial(digest)).weights.params
    curves = [{k: p[k] for k in ("tasks", "val_loss", "val_score", "train_loss")} for p in result["phases"]]
    return (
        {k: v.tobytes() for k, v in workdir.predictions(digest, task).items()},
        (result["test"], result["val_score"], curves),
        {name: {k: np.asarray(v).tobytes() for k, v in head.items()} for name, head in model["heads"].items()},
    )


@pytest.mark.parametrize("regime", ["scratch", pytest.param("multitask_finetune", marks=pytest.mark.slow)])
def test_single_networks_of_many_targets_take_the_programs_of_one_and_have_the_bits_of_each_alone(regime, tmp_path):
    trials = [trial(target, regime) for target in TARGETS]
    assert make_plan(trials).programs() == make_plan(trials[:1]).programs()
    forget()
    alone, one = run(trials[:1], tmp_path / "one")
    forget()
    packed, together = run(trials, tmp_path / "all")
    assert packed == alone
    assert {together.result(t.hash)["phases"][-1]["width"] for t in trials} == {4}
    _, other = run(trials[2:3], tmp_path / "other")
    for t, folder in [(trials[0], one), (trials[2], other)]:
        assert outcome(together, t.hash, t.target) == outcome(folder, t.hash, t.target)
    heads = [outcome(together, t.hash, t.target)[2][t.target]["kernel"] for t in trials]
    assert len(set(heads)) == len(TARGETS)  # Each has its own labels, batches and first head.


def test_a_joint_network_is_tested_on_each_task_as_by_hand(tmp_path):
    t = trial("", "multitask")
    _, workdir = run([t], tmp_path)
    result, table = workdir.result(t.hash), load_table("fruit", {})
    assert set(result["test"]) == set(TARGETS)
    for name in TARGETS:
        arrays = workdir.predictions(t.hash, name)
        np.testing.assert_array_equal(arrays["labels"], table.labels[name][arrays["rows"]])
        assert len(arrays["rows"]) and table.mask[name][arrays["rows"]].all()
        assert result["test"][name]["auroc"] == pytest.approx(
            roc_auc_score(arrays["labels"], arrays["outputs"][:, 0]), abs=1e-6
        )
        given = mtl.load(workdir.trial(t.hash)).predict(table.x[arrays["rows"]], name)
        np.testing.assert_allclose(given, 1 / (1 + np.exp(-arrays["outputs"][:, 0])), atol=1e-6)


def test_addresses_hold_names_and_programs_do_not():
    plan = make_plan([trial("fig"), trial("apple")])
    assert len(plan.trials) == len(plan.nodes) == 2
    assert len({plan.program_key(key) for key in plan.nodes}) == 1


def test_a_head_begins_by_its_own_name_whatever_number_it_has():
    model, shape = build("mlp", {"hidden": (3,)}, (Task("fig", "binary"), Task("pear", "binary")), "lecun_normal"), (4,)
    plain, numbers = numbered(model, shape, ("pear",))
    assert numbers == {"pear": "0", "fig": "1"}
    names = {number: name for name, number in numbers.items()}
    (named,) = loop.initial_weights(model, shape, [3], MAP)
    (found,) = loop.initial_weights(plain, shape, [3], MAP, [[names[task.name] for task in plain.tasks]])
    for number, name in names.items():
        for leaf in ("kernel", "bias"):
            np.testing.assert_array_equal(found.params["heads"][number][leaf], named.params["heads"][name][leaf])


@pytest.mark.parametrize(
    "other", [Task("b", "multiclass", 3), Task("b", "binary", metric="f1"), Task("b", "binary", label_smoothing=0.1)]
)
def test_tasks_that_differ_in_more_than_their_names_are_other_programs(other):
    of = [numbered(build("mlp", {}, (task,)), (4,), (task.name,))[0] for task in (Task("a", "binary"), other)]
    assert of[0] != of[1]


def test_a_backbone_that_knows_its_tasks_keeps_their_names():
    model = build("mmoe", {}, (Task("a", "binary"), Task("b", "binary")))
    assert numbered(model, (4,), ("a",)) == (model, {"a": "a", "b": "b"})
