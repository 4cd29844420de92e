"""What each phase of each regime begins from, against the regime's sentence: composed by hand from files and arrays.

Everything that is shared is in play: prefixes in a plan and on disk, loaded weights, parts made fresh, statistics.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mtl import models, regimes
from mtl.checkpoint import sha256_of
from mtl.commands import dry_run
from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.params import flatten as by_path
from mtl.report.collect import collect
from mtl.sweep import execute as executing
from mtl.sweep import product, sweep
from mtl.sweep.launch import Silent, launch
from mtl.sweep.plan import load_table, make_plan, split_of
from mtl.sweep.store import Workdir
from mtl.train.names import renamed
from mtl.train.program import INIT, Weights, key_for

#: Of each regime's phases in order (and of two of a user's own): the parts that are fresh; before the first comes what
#: it begins from where ``init.path`` is set. Written down from the sentences, not from the phases.
SENTENCES = {
    "scratch": ("random", ()),
    "random_probe": ("random", ("heads/even/",)),
    "scratch_own_scale": ("random", ()),
    "source": ("init", ()),
    "linear_probe": ("init", (), ("heads/even/",)),
    "ridge_probe": ("init", (), ("heads/even/",)),
    "finetune": ("init", (), ("heads/even/",)),
    "lora": ("init", (), ("heads/even/",)),
    "lp_ft": ("init", (), ("heads/even/",), ()),
    "gradual": ("init", (), ("heads/even/",), (), ()),
    "multitask": ("init", ()),
    "multitask_examples": ("init", ()),
    "multitask_best_each": ("init", ()),
    "multitask_finetune": ("init", (), ()),
    "loaded_probe": ("init", ("heads/even/",)),
    "top_anew": ("init", (), ("heads/even/", "backbone/b/")),
    "all_anew": ("init", (), ("backbone/",)),
    "random_source": ("random", (), ()),
}
SOURCE = {"tasks": "source", "lr": "source_lr", "budget": "source"}
OWN = {
    "loaded_probe": ({"trainable": "head", "fresh": ("head",)},),
    "top_anew": (SOURCE, {"fresh": ("head", "backbone/b/.*")}),
    "all_anew": (SOURCE, {"fresh": ("backbone",)}),
    "random_source": ({**SOURCE, "begin": "random"}, {}),
}


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(3, name="dense")(x)))


class Normalised(nn.Module):
    """Two dense blocks with batch normalisation."""

    @nn.compact
    def __call__(self, x, train):
        return Block(name="b")(Block(name="a")(x.reshape(x.shape[0], -1), train), train)


BASE = override(
    flatten(default()),
    {
        "name": "promises",
        "regimes": OWN,
        "model.name": "normalised",
        "model.head_init": "lecun_normal",
        "source.total_steps": 2,
        "target.total_steps": 3,
        "evaluations": 1,
        "data.target_size": 20,
        "save_model": True,
    },
)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    models.register("normalised")(Normalised)
    monkeypatch.setenv("MTL_CACHE_DIR", "off")
    yield
    models.MODELS.pop("normalised")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Weights of the model's shapes, each leaf of numbers of its own; statistics too."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("weights") / "a.safetensors"
    parts = {"heads/even": (3, 1), "heads/identity": (3, 10), "backbone/a/dense": (64, 3), "backbone/b/dense": (3, 3)}
    found = {}
    for part, shape in parts.items():
        found |= {f"params/{part}/kernel": rng.normal(size=shape), f"params/{part}/bias": rng.normal(size=shape[-1])}
    for block in "ab":
        found |= {f"params/backbone/{block}/norm/{leaf}": 1 + rng.random(3) for leaf in ("scale", "bias")}
        found |= {f"state/batch_stats/{block}/norm/{leaf}": 1 + rng.random(3) for leaf in ("mean", "var")}
    safetensors.numpy.save_file({k: v.astype(np.float32) for k, v in found.items()}, path)
    return path


def trials(regime_names, **changes):
    table = load_table("digits", {})
    return [resolve(override(BASE, {"regime": r, **changes}), table) for r in regime_names]


def flat(weights):
    """Return {path: leaf}: parameters, and statistics below ``state/`` with their module's path."""
    return by_path(weights.params) | {f"state/{p.split('/', 1)[1]}": a for p, a in by_path(weights.state).items()}


def initial_of(trial):
    params, state = trial.model().init(key_for(jnp.uint32(trial.seed), INIT), jnp.zeros((1, 64)))
    return {p: np.asarray(a) for p, a in flat(Weights(params, state)).items()}


def loaded_of(file):
    found = safetensors.numpy.load_file(file)
    return {k.removeprefix("params/").replace("batch_stats/", ""): v for k, v in found.items()}


def with_fresh(weights, initial, parts):
    """Return weights with the parts at some places initial: a statistic's place is its module's in the backbone."""
    place = {p: p.replace("state/", "backbone/") for p in weights}
    return {p: initial[p] if place[p].startswith(tuple(parts) or ("none",)) else a for p, a in weights.items()}


@pytest.fixture
def seen(monkeypatch):
    """{address of a phase: (what it began from, what it ended with, what is said of it)}, of every phase trained."""
    found = {}
    run = executing._train

    def recorded(nodes, *args):
        begun = []
        whole = executing.loop.run_phase

        def phase(*a, **k):
            begun.extend(a[3])
            return whole(*a, **k)

        monkeypatch.setattr(executing.loop, "run_phase", phase)
        try:
            done = run(nodes, *args)
        finally:
            monkeypatch.setattr(executing.loop, "run_phase", whole)
        for node, weights in zip(nodes, begun, strict=True):
            weights = renamed(weights, node.compiled.names)  # Programs call heads by numbers.
            found[node.key] = flat(weights), flat(done[node.key].weights), done[node.key].about
        return done

    monkeypatch.setattr(executing, "_train", recorded)
    return found


def same(a, b, what):
    assert a.keys() == b.keys()
    for path, leaf in b.items():
        np.testing.assert_allclose(a[path], leaf, rtol=1e-6, atol=1e-7, err_msg=f"{what}: {path}")


def held_to_sentences(plan, seen, origin):
    """Hold the beginning of every phase of a plan against the sentences."""
    for digest, chain in plan.chains.items():
        trial = plan.trials[digest]
        begin, *fresh = SENTENCES[trial.config["regime"]]
        assert len(chain) == len(fresh)
        initial = initial_of(trial)
        before = origin if begin == "init" and origin is not None else initial
        for number, (key, parts) in enumerate(zip(chain, fresh, strict=True)):
            begun, after, about = seen[key]
            what = f"{trial.config['regime']}, phase {number}"
            same(begun, with_fresh(before, initial, parts), what)
            assert any(not np.array_equal(begun[p], after[p]) for p in begun), what
            before = after
        if trial.config["regime"].endswith("probe"):
            trunk = {p for p in begun if not p.startswith("heads/")}
            assert all(np.array_equal(begun[p], after[p]) for p in trunk)
        # What was recorded is the loss of these very weights: no cache holds the features of others.
        if "even" in about["tasks"]:
            np.testing.assert_allclose(about["val_loss"]["even"][-1], log_loss_of(after, trial), rtol=1e-4)


def log_loss_of(weights, trial):
    """Return the target's validation loss, in float64 with NumPy."""
    table, split = load_table("digits", {}), split_of(trial)
    rows = np.flatnonzero(split.val["even"])
    h = np.asarray(table.x[rows], np.float64).reshape(len(rows), -1)
    w = {p: a.astype(np.float64) for p, a in weights.items()}
    for block in "ab":
        at = f"backbone/{block}"
        h = h @ w[f"{at}/dense/kernel"] + w[f"{at}/dense/bias"]
        h = (h - w[f"state/{block}/norm/mean"]) / np.sqrt(w[f"state/{block}/norm/var"] + 1e-5)
        h = np.maximum(h * w[f"{at}/norm/scale"] + w[f"{at}/norm/bias"], 0)
    z = (h @ w["heads/even/kernel"] + w["heads/even/bias"])[:, 0]
    return np.mean(np.logaddexp(0, z) - split.labels["even"][rows] * z)


def test_the_sentences_name_every_regime():
    # A doctest registers one, and references are no networks.
    ours = {name for name, r in regimes.REGIMES.items() if r.summary != "an example" and not r.reference}
    assert set(SENTENCES) == ours | set(OWN)


@pytest.mark.slow
@pytest.mark.parametrize("path", [False, True], ids=["random", "loaded"])
def test_every_phase_begins_as_its_regimes_sentence_says(path, file, seen, tmp_path):
    changes = {"init.path": str(file)} if path else {}
    chosen = trials(SENTENCES, **changes)
    plan = make_plan(chosen)
    assert len(plan.nodes) < sum(map(len, plan.chains.values())), "phases must be shared, or it shows nothing"
    executing.execute(plan, Workdir(tmp_path / "work"))
    held_to_sentences(plan, seen, loaded_of(file) if path else None)
    # From prefixes on disk it is the same.
    first = dict(seen)
    again = make_plan(trials([r for r, s in SENTENCES.items() if len(s) > 2], **changes, **{"lr": 2e-3}))
    executing.execute(again, Workdir(tmp_path / "work"))
    assert len(again.nodes) > len(again.nodes.keys() - first.keys()), "some must be read from disk"
    held_to_sentences(again, seen, loaded_of(file) if path else None)


@pytest.mark.slow
def test_parts_left_out_of_the_file_are_random_with_their_statistics(file, seen, tmp_path):
    chosen = trials(["source", "scratch"], **{"init.path": str(file), "init.fresh": ("backbone/b/.*", "heads/.*")})
    plan = make_plan(chosen)
    executing.execute(plan, Workdir(tmp_path / "work"))
    initial = initial_of(chosen[0])
    parts = ("backbone/b/", "heads/")
    same(seen[plan.chains[chosen[0].hash][0]][0], with_fresh(loaded_of(file), initial, parts), "source")
    same(seen[plan.chains[chosen[1].hash][0]][0], initial, "scratch")


def test_random_weights_are_the_same_phase_whatever_could_be_loaded(file, tmp_path):
    plain = make_plan(trials(SENTENCES))
    loaded = make_plan(trials(SENTENCES, **{"init.path": str(file), "init.fresh": ("heads/.*",)}))
    for (d, chain), (other, with_init) in zip(plain.chains.items(), loaded.chains.items(), strict=True):
        random = SENTENCES[plain.trials[d].config["regime"]][0] == "random"
        assert d != other
        assert [a == b for a, b in zip(chain, with_init, strict=True)] == [random] * len(chain)
        assert loaded.trials[other].loads == ("" if random else str(file))
        assert plain.trials[d].loads == ""


def test_a_dry_run_says_what_trials_begin_from(file, tmp_path, capsys):
    entries = product(sweep("regime", ("scratch", "finetune", "multitask")), sweep("seed", range(2)))
    for path, lines in (str(file), ["2 trials begin from random weights", f"4 trials begin from {file}"]), ("", []):
        dry_run.show(override(BASE, {"init.path": path}), {"s": entries}, Workdir(tmp_path / "work"), each=False)
        assert [line.strip() for line in capsys.readouterr().out.splitlines() if "begin" in line] == lines


def test_a_file_that_is_not_begun_from_is_not_read(tmp_path):
    nowhere = {"init.path": str(tmp_path / "nowhere.safetensors")}
    make_plan(trials(["scratch", "random_probe"], **nowhere))
    with pytest.raises(ConfigError, match=r"config\.init\.path = .*nowhere"):
        make_plan(trials(["finetune"], **nowhere))


@pytest.mark.parametrize(
    ("phases", "path", "message"),
    [
        (
            ({"begin": "init"},),
            "",
            r'^config\.init\.path = "": regime "mine" begins from loaded weights: must ',
        ),
        (({"begin": "loaded"},), "x", r'^regime "mine": begin = "loaded": .*random'),
        (({}, {"begin": "random"}), "x", r'^regime "mine": phase 1: begin = "random": is of a first phase'),
        (({}, {"begin": "init"}), "", r'^regime "mine": phase 1: begin = "init": is of a first phase'),
        (({"begin": 3},), "", r"begin = 3: must be a text"),
    ],
)
def test_a_beginning_that_cannot_be_is_refused(phases, path, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        trials(["mine"], **{"regimes": {"mine": phases}, "init.path": path})


def test_loaded_weights_stand_for_a_source_that_is_not_there():
    from tests.train.build import trial

    for regime, count in {"linear_probe": 1, "ridge_probe": 1, "finetune": 1, "lp_ft": 2, "gradual": 3}.items():
        with pytest.raises(ConfigError, match=rf'regime "{regime}" trains on the source'):
            trial(regime=regime, data__source=())
        whole = trial(regime=regime).phases
        found = trial(regime=regime, data__source=(), init__path="x").phases
        assert [(p.tasks, p.trainable, p.fresh, p.lr, p.total_steps) for p in found] == [
            (p.tasks, p.trainable, p.fresh, p.lr, p.total_steps) for p in whole[1:]
        ]
        assert [p.begin for p in found] == ["init"] + [""] * (count - 1)
    for regime in ("source", "multitask"):
        with pytest.raises(ConfigError, match="trains on the source"):
            trial(regime=regime, data__source=(), init__path="x")


@pytest.mark.slow
def test_what_regimes_begin_from_is_charged_and_stands_under_the_table(tmp_path):
    base = override(BASE, {"model.name": "mlp", "model.options": {"hidden": (3,)}})
    table = load_table("digits", {})
    elsewhere = resolve(override(base, {"regime": "source", "source.total_steps": 7}), table)
    first = Workdir(tmp_path / "first")
    executing.execute(make_plan([elsewhere]), first)
    model = first.trial(elsewhere.hash) / "model.safetensors"
    copied = tmp_path / "copied.safetensors"
    copied.write_bytes(model.read_bytes())
    spent = {}
    for name, path in {"own": first.trial(elsewhere.hash), "copy": copied}.items():
        entries, workdir = sweep("regime", ("scratch", "finetune")), Workdir(tmp_path / name)
        begun = override(base, {"init.path": str(path)})
        launch(begun, {"s": entries}, workdir, jobs=0, config_file=None, display=Silent())
        scores = collect(Workdir(workdir.path), "s")
        spent[name] = {r: (c.examples, c.source_examples) for r, c in scores.cost.items()}
        (note,) = [n for n in scores.data_notes if "begin" in n]
        known = "training on 224 examples is charged" if name == "own" else "training is not known and not charged"
        assert note == (
            f"finetune begins from the weights at {path} (sha256 {sha256_of(model)[:12]}), whose {known} to it; "
            "scratch begins from random weights."
        )
        results = [workdir.result(t["hash"]) for t in workdir.study()["sweeps"]["s"]["trials"]]
        used = {r["config"]["regime"]: r["fingerprint"].get("init", {}).get("sha256", "") for r in results}
        assert used == {"scratch": "", "finetune": sha256_of(model)}
    assert spent["own"]["scratch"] == spent["copy"]["scratch"] == (160, 0)
    (total, source), (bare_total, bare_source) = spent["own"]["finetune"], spent["copy"]["finetune"]
    assert (total - bare_total, source - bare_source) == (7 * 32, 7 * 32)
