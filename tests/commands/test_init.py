"""What is proposed for a table can be run, whatever the table; and what cannot be is said at once."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.cli import main
from mtl.commands.given import names_of, seconds_of
from mtl.commands.proposal import CONTENDERS, LOOKS, RATES, config_text, first_wave, later_wave, propose
from mtl.commands.usage import UsageError
from mtl.config import canonical, flatten, override, resolve
from mtl.data import DataError, cut, make_table
from mtl.sweep import sweeps_of
from mtl.tasks import Task


class Module:
    """What a config file that is not on disk defines."""

    def __init__(self, text):
        self.__name__ = "made"
        exec(text, vars(self))  # noqa: S102


def table(rows, kind="binary", also=(), share=0.5, missing=0.0, seed=0, groups=None, x=None):
    rng = np.random.default_rng(seed)

    def label(of):
        if of == "regression":
            y = rng.normal(size=rows)
        elif of == "multiclass":
            y = (np.arange(rows) % 3).astype(float)
        else:
            y = (np.arange(rows) < max(2, round(share * rows))).astype(float)
        return np.where(rng.uniform(size=rows) < missing, np.nan, y)

    tasks = [Task("y", kind, 3 if kind == "multiclass" else 0)]
    tasks += [Task(f"z{k}", of, 3 if of == "multiclass" else 0) for k, of in enumerate(also)]
    given_labels = {t.name: label(t.kind) for t in tasks}
    for t in tasks:
        if t.labels == "ids":
            given_labels[t.name] = np.where(np.isnan(given_labels[t.name]), -1, given_labels[t.name]).astype(int)
    x = rng.normal(size=(rows, 4)) if x is None else x
    return make_table("made", x, tasks, given_labels, groups=groups)


def text_of(proposal):
    return config_text(proposal, "Made by a test.", 4, "compare", first_wave(proposal, LOOKS[0]))


def resolves(proposal, seeds=(0, 7)):
    """Resolve the proposal's config and draw its splits; return the first trial and split."""
    module = Module(text_of(proposal))
    flat = flatten(module.get_config())
    found = []
    for seed in seeds:
        for regime in proposal.regimes[-1:] if seed else proposal.regimes:
            trial = resolve(override(flat, {"regime": regime, "seed": seed}), proposal.table)
        split = cut(proposal.table, canonical(trial.config["data"]), seed)
        for task, train in split.train.items():
            assert train.any() and split.val[task].any()
        found.append((trial, split))
    return found[0]


@settings(max_examples=8)
@given(
    rows=st.one_of(st.integers(12, 60), st.integers(12, 900)),
    kind=st.sampled_from(["binary", "multiclass", "regression"]),
    also=st.lists(st.sampled_from(["binary", "multiclass", "regression"]), max_size=2),
)
def test_configs_resolve_whatever_the_number_of_rows(rows, kind, also):
    data = table(rows, kind, also)
    proposal = propose(data, ("csv", {"path": "made.csv", "labels": ("y",)}), "y", [f"z{k}" for k in range(len(also))])
    _, split = resolves(proposal)
    assert split.test["y"].sum() == proposal.test_size
    assert split.train["y"].sum() + split.val["y"].sum() == proposal.target_size  # Nothing is left aside.
    assert proposal.test_size + proposal.target_size == rows


@pytest.mark.parametrize("rows", [12, 569, 100_000])
def test_sizes_are_in_proportion(rows):
    also = ["z0"] if rows < 1000 else []
    proposal = propose(table(rows, also=["binary"] * len(also)), ("csv", {}), "y", also)
    assert 0.05 <= proposal.test_size / rows <= 0.35 and proposal.test_size <= 5000
    assert proposal.regimes[: 1 + len(CONTENDERS)] == ("scratch", *CONTENDERS) or not also
    assert ("forest" in proposal.regimes) == (rows <= 50_000)  # Else its cross-validation takes minutes.
    resolves(proposal, seeds=(0,))


def test_other_tasks_without_the_targets_labels_are_on_rows_of_their_own():
    data = table(400, also=["binary"], share=0.4)
    few = make_table(
        "few",
        data.x,
        data.tasks,
        {"y": np.where(np.arange(400) % 5, np.nan, data.labels["y"]), "z0": data.labels["z0"]},
    )
    proposal = propose(few, ("csv", {}), "y", ["z0"])
    assert (proposal.rows, proposal.source_size, proposal.test_size + proposal.target_size) == ("disjoint", 320, 80)
    trial, split = resolves(proposal)
    assert trial.config["data"]["source_size"] == 320
    learned = split.train["z0"] | split.val["z0"]
    assert not (learned & (split.train["y"] | split.val["y"] | split.test["y"])).any() and learned.sum() == 320
    assert propose(data, ("csv", {}), "y", ["z0"]).rows == "shared"


def test_rare_classes_and_groups_have_a_split():
    rare = propose(table(40, share=0.05), ("csv", {}), "y")  # Two positives.
    _, split = resolves(rare)
    assert split.labels["y"][split.test["y"]].sum() == 1 and rare.metric == "auroc"
    shuffled = np.random.default_rng(0).permutation(200)
    grouped = propose(table(200, groups=shuffled // 8), ("csv", {}), "y")
    _, split = resolves(grouped)
    parts = [set((shuffled[part["y"]] // 8).tolist()) for part in (split.train, split.val, split.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_networks_go_by_the_inputs():
    images = np.random.default_rng(0).uniform(size=(60, 8, 8, 1)).astype(np.float32)
    found = propose(table(60, x=images), ("npz", {}), "y")
    assert found.model[0] == "cnn"
    resolves(found, seeds=(0,))
    wide = propose(table(60, x=np.random.default_rng(0).normal(size=(60, 600))), ("csv", {}), "y")
    assert wide.model == ("mlp", {"hidden": (256,), "dropout": 0.5})


def test_all_that_is_wrong_with_labels_is_said_at_once():
    same, few = np.zeros(30), np.full(30, np.nan)
    few[:3] = [0, 1, 1]
    labels = {"same": same, "few": few, "one": (np.arange(30) == 4) * 1.0}
    data = make_table("bad", np.random.default_rng(0).normal(size=(30, 2)), [Task(n, "binary") for n in labels], labels)
    with pytest.raises(DataError) as wrong:
        propose(data, ("csv", {}), "same", ["few", "one"])
    lines = str(wrong.value).splitlines()
    assert len(lines) == 3
    for line, said in zip(lines, ('"same": classes with fewer', '"few": has 3 labels', "1 (1)"), strict=True):
        assert said in line
    with pytest.raises(DataError) as wrong:
        propose(data, ("csv", {}), "sme", ["few", "few"])
    assert 'did you mean "same"' in str(wrong.value) and '"few" is there twice' in str(wrong.value)


def test_later_waves_go_on_with_the_rates_that_were_kept():
    proposal = propose(table(60, also=["binary"]), ("csv", {}), "y", ["z0"])
    kept = {regime: (1e-3,) for regime in proposal.regimes} | {"finetune": (1e-3, 1e-2)}
    body = later_wave(proposal, 10, kept)
    first = sweeps_of(Module(text_of(proposal)))["compare"]()
    both = sweeps_of(Module(config_text(proposal, "", 4, "compare", body)))["compare"]()
    assert both[: len(first)] == first and len(first) == 5 * len(RATES) * len(proposal.regimes)
    more = both[len(first) :]
    assert {c["seed"] for c in more} == set(range(5, 10))
    assert {(c["regime"], c["lr"]) for c in more} == {(r, rate) for r, rates in kept.items() for rate in rates}


def csv(path, rows=60):
    rng = np.random.default_rng(0)
    lines = ["id,age,weight,ill,breed"]
    for i in range(rows):
        lines.append(f"{i},{rng.normal():.3f},{rng.normal():.3f},{i % 2},{('cat', 'dog', 'owl')[i % 3]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_file_it_writes_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    csv(tmp_path / "pets.csv")
    words = ["init", "pets.csv", "--target", "ill", "--also", "breed", "ignore=id", "-o", "pets.py"]
    assert main(words) == 0
    text = (tmp_path / "pets.py").read_text()
    assert "'ill'" in text and all("#" in line for line in text.splitlines() if "total_steps" in line)
    capsys.readouterr()
    assert main(["sweep", "--config=pets.py", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "sweep compare:" in shown and "to tune the source's learning rate" in shown
    assert main(words) == 2 and "is there already" in capsys.readouterr().err
    assert main(["data", "describe", "--config=pets.py", "--json", "--no-pictures"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [t["name"] for t in found["tasks"]] == ["ill", "breed"]
    assert sum(found["split"]["roles"]["ill"].values()) == 60


BAD = {
    "no file": (["nowhere.csv", "--target", "ill"], "nowhere.csv: is no file, and no data"),
    "a folder": ([".", "--target", "ill"], "is a folder"),
    "no target": (["pets.csv"], "--target"),
    "no such column": (["pets.csv", "--target", "il"], 'did you mean "ill"'),
    "the target twice": (["pets.csv", "--target", "ill", "--also", "ill,breed"], "names ill twice"),
    "labels": (["pets.csv", "--target", "ill", "labels=breed"], "labels = breed"),
    "an option": (["pets.csv", "--target", "ill", "ignor=id"], 'did you mean "ignore"'),
    "a kind": (["pets.csv", "--target", "ill:bool"], 'kind "bool"'),
}


@pytest.mark.parametrize("command", ["init", "compare"])
@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence(command, words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    csv(tmp_path / "pets.csv")
    assert main([command, *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and not captured.out and "Traceback" not in captured.err
    assert not (tmp_path / "runs").exists() and not (tmp_path / "study.py").exists()


@pytest.mark.parametrize("budget", ["10", "m", "0m", "-3s", "1d", "ten", ""])
def test_a_budget_has_its_unit(budget):
    with pytest.raises(UsageError, match="must be a number above 0 with its unit"):
        seconds_of(budget)


def test_names_are_parted_by_commas():
    assert names_of("a, b,,c ") == names_of(["a", "b", "c"]) == ("a", "b", "c")
    assert names_of("") == ()
