"""Names are names: a task may be called anything, and each path, pool, file and table knows it from others."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mtl
from mtl import params as paths
from mtl.checkpoint import load_tree
from mtl.config import default, flatten, override, resolve
from mtl.data import SOURCES, make_table, register
from mtl.host.escape import escape
from mtl.report.publish import analyses_of, publish
from mtl.sweep import product, sweep
from mtl.sweep.launch import Silent, launch
from mtl.sweep.plan import load_table
from mtl.sweep.store import Workdir
from mtl.tasks import Task
from mtl.train.dataset import Pool, make_data, pool_name
from mtl.train.trial import stages_of
from tests.train.build import split_of
from tests.train.build import trial as small

NASTY = [
    *("price (EUR)", "log(P)", "CD4+", "c++", "dose [mg]", "a.b", "axb", "survived?", "NR/AR", "NR%2FAR", "NR", "AR"),
    *("a+b", "a", "b", "+", "*", ".*", "^$", "a|b", "\\", "\\1", "{1}", "%", "%25", "//", "/", "..", ".hidden", "~"),
    *("heads", "backbone", "heads/a", "all", "head", "last_1", "source", "target", "source+target", "params", "count"),
    *("日本", "Größe", "Gro\u0308ße", "a\nb", "a:b", "__class__", "$x_{$", "&amp;", "<b>", "| a |", "'\"", "x" * 300),
]
NAMES = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
THREE = st.lists(NAMES, min_size=3, max_size=3, unique=True)


@register("named")
def named(names=("p", "q", "r"), rows=240):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    labels = {name: (x @ rng.normal(size=4) > 0).astype(float) for name in names}
    return make_table("named", x, [Task(name, "binary") for name in names], labels)


@pytest.fixture(autouse=True, scope="module")
def _registered():
    yield
    SOURCES.pop("named", None)


def config(names, **changes):
    return override(
        flatten(default()),
        {
            "name": "names",
            "data.name": "named",
            "data.options": {"names": tuple(names)},
            "data.source": tuple(names[:2]),
            "data.target": names[2],
            **{"data.target_size": 40, "data.target_pool": 80, "data.test_size": 60},
            **{"data.source_size": 90, "data.source_val_size": 20, "batch_size": 8, "evaluations": 2},
            **{"model.options": {"hidden": (6, 5)}, "source.total_steps": 4, "target.total_steps": 4},
            **changes,
        },
    )


def trial(names, **changes):
    return resolve(config(names, **changes), load_table("named", {"names": tuple(names)}))


def spelled(path, names):
    """Return a path with its task's name replaced by its place: what the path means, whatever the name."""
    parts = path.split("/")
    if parts[0] == "heads":
        place = {paths.escaped(name): str(i) for i, name in enumerate(names)}
        parts[1] = place[parts[1]]
    return "/".join(parts)


PLAIN = ("first", "second", "third")


@functools.cache
def plain_stages(regime):
    return stages_of(trial(PLAIN, regime=regime), (4,))


@pytest.mark.parametrize("regime", ["scratch", "finetune", "lp_ft", "gradual", "linear_probe", "multitask_finetune"])
@settings(deadline=None, max_examples=25)
@given(names=THREE)
@example(names=["a.b", "axb", "a+b"])
@example(names=["NR", "NR/AR", "NR%2FAR"])
@example(names=["a+b", "a", "b"])
def test_each_regime_moves_and_renews_the_same_parameters_whatever_tasks_are_called(regime, names):
    for mine, theirs in zip(stages_of(trial(names, regime=regime), (4,)), plain_stages(regime), strict=True):
        assert sorted(spelled(p, names) for p in mine.program.trainable) == sorted(
            spelled(p, PLAIN) for p in theirs.program.trainable
        )
        assert sorted(spelled(p, names) for p in mine.fresh) == sorted(spelled(p, PLAIN) for p in theirs.fresh)


@settings(deadline=None, max_examples=200)
@given(one=st.lists(NAMES, min_size=1, max_size=3), other=st.lists(NAMES, min_size=1, max_size=3))
@example(one=["a+b"], other=["a", "b"])
@example(one=["a%2Bb"], other=["a+b"])
def test_pools_paths_and_patterns_of_different_names_differ(one, other):
    assert (pool_name(one) == pool_name(other)) == (one == other)
    assert (paths.join(*one) == paths.join(*other)) == (one == other)
    assert bool(re.fullmatch(paths.exactly(paths.join(*one)), paths.join(*other), re.DOTALL)) == (one == other)


def test_a_pool_holds_the_rows_of_its_own_tasks():
    names = ["a", "b", "a+b"]
    t = trial(names, regime="multitask", joint_sampling="rows")
    table = load_table("named", {"names": tuple(names)})
    rng = np.random.default_rng(1)
    train = {name: rng.random(len(table)) < 0.3 for name in names}
    split = dataclasses.replace(split_of(small()), labels=table.labels, train=train, val=train, test=train)
    programs = [s.program for s in stages_of(t, (4,))]
    programs += [s.program for s in stages_of(trial(names, regime="source"), (4,))]  # Its pool is that of a and b.
    data = make_data(table, [split], programs, len(table))
    own = data.own_rows
    for tasks in [("a",), ("b",), ("a+b",), ("a", "b"), ("a", "b", "a+b")]:
        if len(tasks) > 1:
            pool = data.train_rows[pool_name(tasks)]
        else:
            (at,) = data.columns(tasks)
            pool = Pool(own.rows[:, at], own.count[:, at])
        want = np.flatnonzero(np.any([split.train[t] for t in tasks], axis=0))
        np.testing.assert_array_equal(np.asarray(pool.rows)[0, : int(pool.count[0])], want)


def trained(names, folder, **changes):
    base = config(names, **changes)
    entries = product(sweep("regime", ["scratch", "multitask_finetune"]), sweep("seed", [0]))
    launch(base, {"s": entries}, Workdir(folder), jobs=0, config_file=None, display=Silent())
    return Workdir(folder)


def check(names, folder):
    """Train with tasks of these names; what is written is read back, predicts what was recorded, and is told."""
    workdir = trained(names, folder, **{f"loss.weights.{names[2]}": 0.5, f"task_options.{names[0]}.pos_weight": 2.0})
    table = load_table("named", {"names": tuple(names)})
    for entry in workdir.study()["sweeps"]["s"]["trials"]:
        target = escape(names[2])  # As results name it.
        result, arrays = workdir.result(entry["hash"]), workdir.predictions(entry["hash"], target)
        assert result["status"] == "done" and set(result["test"]) == {target}
        back = mtl.load(workdir.trial(entry["hash"]))
        assert set(back.weights.params["heads"]) == set(names) == {t.name for t in back.trial.tasks}
        given = back.predict(table.x[arrays["rows"]])
        np.testing.assert_allclose(given, 1 / (1 + np.exp(-arrays["outputs"][:, 0].astype(float))), atol=1e-5)
        np.testing.assert_array_equal(arrays["labels"], table.labels[names[2]][arrays["rows"]])
        tree, _ = load_tree(workdir.trial(entry["hash"]) / "model.safetensors")
        assert jax.tree.structure(tree["params"]) == jax.tree.structure(back.weights.params)
        begun = trial(names, **{"init.path": str(workdir.trial(entry["hash"])), "regime": "scratch"})
        fresh = trial(
            names,
            **{"init.path": str(workdir.trial(entry["hash"])), "regime": "scratch"},
            **{"init.fresh": (paths.exactly(paths.join("heads", names[1])) + "/.*",)},
        )
        assert begun.hash != fresh.hash
    written = publish(workdir, analyses_of(workdir), "test")
    assert all(path.stat().st_size for path in written)
    curves = mtl.results(workdir.path, "curves")
    assert set(curves["task"]) == set(map(escape, names))  # What a terminal would obey is spelled out.


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("log(P)", "NR/AR", "+"),
        pytest.param(("+", "a", "a/+"), marks=pytest.mark.slow),
        pytest.param(("dose [mg]", "a.b", "$x_{$"), marks=pytest.mark.slow),
        pytest.param(("a", "b", "\x1a"), marks=pytest.mark.slow),
    ],
)
def test_tasks_of_such_names_are_trained_saved_loaded_and_told(names, tmp_path):
    check(names, tmp_path)


@pytest.mark.slow
@settings(deadline=None, max_examples=4)
@given(names=THREE)
def test_tasks_of_any_name_are_trained_saved_loaded_and_told(tmp_path_factory, names):
    check(names, tmp_path_factory.mktemp("names"))


@pytest.mark.parametrize("nasty", NASTY)
def test_every_format_of_a_table_keeps_a_name_in_its_cell(nasty):
    """As many rows and columns come out as went in, and what the page shows is the name."""
    from html.parser import HTMLParser

    from mtl.report.formats import Table, TableCell, to_html, to_latex, to_markdown

    table = Table("t", nasty, (nasty, nasty), ((TableCell(nasty), TableCell(nasty)),), (nasty,), ())
    markdown = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in markdown] == [3, 3, 3]
    latex = to_latex(table)
    assert [len(re.findall(r"(?<!\\)&", line)) for line in latex.splitlines() if line.endswith(r"\\")] == [1, 1]
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")

    class Cells(HTMLParser):
        def handle_data(self, data):
            found.append(data)

    found: list[str] = []
    parser = Cells()
    parser.feed(to_html(table))
    assert found.count(nasty) == 6
