"""What decides a trial's numbers is edited: that is said, and what it decided is run again; nothing else is."""

import csv
import json
import sys

import numpy as np
import pytest
import safetensors.numpy
from sklearn.metrics import accuracy_score

import mtl
from mtl.cli import main
from mtl.config import flatten, load
from mtl.data import SOURCES
from mtl.report.collect import collect
from mtl.sweep import execute, sweeps_of, workers
from mtl.sweep.launch import launch
from mtl.sweep.plan import look_again
from mtl.sweep.store import StoreError, Workdir
from tests.sweep import by_hand
from tests.sweep.test_integrity import Told

CONFIG = '''
"""A study."""
import mtl.models
import numpy as np
from mtl.config import default
from mtl.models import MLP
from mtl.sweep import product, sweep
{imports}

SEEDS = range(2)


@mtl.models.register("mine")
def mine():
    return MLP(({width},))


def get_config():
    c = default()
    c.name = "stale"
    c.regime = "scratch"
    c.model.name = "mine"
    c.data.name = "{data}"
    c.data.options = {options}
    c.data.source, c.data.target = ("z",), "y"
    c.data.target_size, c.data.target_pool, c.data.test_size = 20, 40, 30
    c.data.source_size, c.data.source_val_size = 20, 5
    # So few for the source that all regimes' last phases are one pack.
    c.source.total_examples, c.target.total_steps, c.evaluations = 1, 20, 1
    c.lr = 1e-2
    {more}
    return c


def sweep_s():
    """?"""
    return product(sweep("regime", ("scratch", "finetune")), sweep("seed", SEEDS))
'''


def forget():
    """Forget what a config registered and imported, as a new process has."""
    mtl.models.MODELS.pop("mine", None)
    SOURCES.pop("drawn", None)
    sys.modules.pop("nets", None)


class Study:
    """A study in a folder; ``run`` is what a new process would do."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "cfg.py"
        self.table = folder / "t.csv"
        self.write_table()
        self.write()

    def write_table(self, right=False, cell=None):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(120, 3)).round(3)
        y = (x[:, 0] > 0).astype(int)
        shown = y if right else rng.permutation(y)
        rows = [[*row, int(label), i % 2] for i, (row, label) in enumerate(zip(x, shown, strict=True))]
        if cell is not None:
            rows[self.tested()][0] = cell
        with self.table.open("w", newline="") as file:
            csv.writer(file).writerows([["a", "b", "c", "y", "z"], *rows])

    def write(self, **said):
        options = repr({"path": str(self.table), "labels": ("y", "z")})
        about = {"imports": "", "width": 4, "data": "csv", "options": options, "more": ""} | said
        text = CONFIG
        for name, value in about.items():
            text = text.replace(f"{{{name}}}", str(value))
        self.file.write_text(text)

    def run(self, where="work", **how):
        forget()
        config, module = load(str(self.file))
        entries, display = {"s": sweeps_of(module)["s"]()}, Told()
        workdir = Workdir(self.folder / where)
        about = {"jobs": 0, "config_file": str(self.file), "display": display} | how
        (summary,) = launch(flatten(config), entries, workdir, **about)
        return summary, display.told

    def tested(self):
        """Return a row that is tested on; 0 if there is no result yet."""
        workdir = Workdir(self.folder / "work")
        return next((int(workdir.predictions(digest, "y")["rows"][0]) for digest in workdir.hashes()), 0)

    def numbers(self, where="work"):
        """Return what each trial came to, and check it: its labels are the table's, its accuracy scikit-learn's."""
        workdir, found = Workdir(self.folder / where), {}
        for digest in workdir.hashes():
            result, arrays = workdir.result(digest), workdir.predictions(digest, "y")
            right = accuracy_score(arrays["labels"], arrays["outputs"][:, 0] > 0)
            assert result["test"]["y"]["accuracy"] == pytest.approx(right)
            found[digest] = (result["val_score"], arrays["outputs"].tolist(), arrays["labels"].tolist())
        assert found.keys() == {folder.name for folder in (workdir.path / "trials").iterdir()}
        return found


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Study(tmp_path)
    forget()


def edit_config(study, old, new):
    text = study.file.read_text()
    assert old in text
    study.file.write_text(text.replace(old, new))


def helped(study, width):
    (study.folder / "nets.py").write_text(f"def width():\n    return {width}\n")
    for cached in (study.folder / "__pycache__").glob("nets*"):
        cached.unlink()  # Written within a second, and of the same size: Python would take it for the same.
    study.write(imports="import nets", width="nets.width()")


def begun_from(study, value):
    shapes = {
        "backbone/dense_0/bias": (4,),
        "backbone/dense_0/kernel": (3, 4),
        **{f"heads/{t}/bias": (1,) for t in "yz"},
        **{f"heads/{t}/kernel": (4, 1) for t in "yz"},
    }
    file = study.folder / "w.safetensors"
    rng = np.random.default_rng(value)
    safetensors.numpy.save_file({k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}, file)
    study.write(more=f"c.init.path = {str(file)!r}")


def pictures(study, value):
    image = pytest.importorskip("PIL.Image")
    folder = study.folder / "pictures"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    lines = ["file,y,z"]
    for i in range(120):
        pixels = rng.integers(0, 255, (4, 4), np.uint8)
        if i == study.tested():
            pixels[2, 1] = value
        image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"pictures/{i}.png,{int(pixels[0, 0] > 127)},{i % 2}")
    (study.folder / "list.csv").write_text("\n".join(lines) + "\n")
    study.write(
        data="images",
        options=repr({"path": str(study.folder / "list.csv"), "labels": ("y", "z"), "size": (4, 4)}),
    )


def registered(study, value):
    study.write(
        imports=(
            "from mtl.data import make_table, register\nfrom mtl.tasks import Task\n\n\n"
            '@register("drawn")\ndef drawn():\n'
            f"    x = np.random.default_rng(0).normal(size=(120, 3)) + {value}\n"
            "    labels = {'y': x[:, 0] > 0, 'z': np.arange(120) % 2}\n"
            "    return make_table('drawn', x, [Task('y', 'binary'), Task('z', 'binary')], labels)\n"
        ),
        data="drawn",
        options="{}",
    )


#: (what is done first, the edit, what is said to have changed)
EDITS = {
    "a cell of the table": (lambda s: None, lambda s: s.write_table(cell=2.5), "the data changed ({folder}/t.csv)"),
    "all labels": (lambda s: None, lambda s: s.write_table(right=True), "the data changed ({folder}/t.csv)"),
    "a number of the model": (
        lambda s: None,
        lambda s: s.write(width=5),
        "the config file's code changed (cfg.py)",
    ),
    "a number of a module that the config imports": (
        lambda s: helped(s, 4),
        lambda s: helped(s, 5),
        "the config file's code changed (cfg.py, nets.py)",
    ),
    "the weights that it begins from": (
        lambda s: begun_from(s, 0),
        lambda s: begun_from(s, 1),
        "the weights changed ({folder}/w.safetensors)",
    ),
    "a pixel": (lambda s: pictures(s, 3), lambda s: pictures(s, 250), "the data changed ({folder}/list.csv)"),
    "a number of a data set's function": (
        lambda s: registered(s, 0),
        lambda s: registered(s, 0.25),
        "the data changed (drawn), the config file's code changed (cfg.py)",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("first", "edit", "said"), EDITS.values(), ids=EDITS)
def test_what_an_edit_decides_is_said_run_again_and_replaced(study, first, edit, said):
    first(study)
    summary, told = study.run()
    assert (summary.ran, summary.failed, told) == (4, {}, [])
    before = study.numbers()
    edit(study)
    summary, told = study.run()
    reason = said.format(folder=study.folder)
    count = 2 if reason.startswith("the weights") else 4  # scratch begins from none.
    assert (summary.ran, summary.reused, summary.failed) == (count, 4 - count, {})
    assert told == [f"{count} trials are stale: {reason}; run again, each replaced when that is done"]
    study.run("new")
    after = study.numbers()
    assert after == study.numbers("new")
    assert after.keys() == before.keys() and after != before
    summary, told = study.run()
    assert (summary.ran, summary.reused, told) == (0, 4, [])


HARMLESS = {
    "a comment": ("SEEDS =", "# Few.\nSEEDS ="),
    "a docstring": ('"""A study."""', '"""Of what is old."""'),
    "the question": ('"""?"""', '"""Is it?"""'),
    "another way to say the same": ("c.lr = 1e-2", "c.lr = 0.01"),
    "what another sweep needs": ("SEEDS = range(2)", "SEEDS = range(2)\nMORE = range(9)"),
}


@pytest.mark.slow
def test_edits_that_decide_no_number_run_nothing(study):
    study.run()
    before = {p: p.read_bytes() for p in study.folder.glob("work/*/**/*") if p.parts[-2] != "lease" and p.is_file()}
    assert {"results", "trials"} <= {path.relative_to(study.folder / "work").parts[0] for path in before}
    for old, new in HARMLESS.values():
        edit_config(study, old, new)
        summary, told = study.run()
        assert (summary.ran, summary.reused, told) == (0, 4, [])
    edit_config(study, "SEEDS = range(2)", "SEEDS = range(3)")
    summary, told = study.run()
    assert (summary.ran, summary.reused, told) == (2, 4, [])
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_a_study_of_which_some_results_are_stale_goes_on(study):
    """Two of its results are of other code, and one file is of a shared phase of theirs: it is not gone on from."""
    study.run()
    right = study.numbers()
    study.write(width=5)
    study.run()
    other = {path: path.read_bytes() for path in study.folder.glob("work/*/**/*") if path.is_file()}
    study.write()
    study.run("again")
    workdir = study.folder / "again"
    regimes = {digest: result["config"]["regime"] for digest, result in by_hand.results(workdir).items()}
    (shard,) = by_hand.shards(study.folder / "work")
    for path, content in other.items():  # The results of one regime, and every shared phase.
        to = workdir / path.relative_to(study.folder / "work")
        if path == shard or path.parent.name == "prefixes" or regimes.get(path.parent.name) == "finetune":
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(content)
    for digest in (digest for digest, regime in regimes.items() if regime == "scratch"):
        by_hand.forget(workdir, digest)  # In the new shard: the old one holds the right one.
    summary, told = study.run("again")
    assert (summary.ran, summary.reused) == (2, 2)
    assert told[0].startswith("2 trials are stale: the config file's code changed")
    assert study.numbers("again") == right


def test_what_fails_after_an_edit_leaves_the_old_result_and_no_table_shows_it(study, capsys, monkeypatch):
    study.run()
    before = study.numbers()
    study.write(width=5)

    def breaks(*_, **__):
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(execute, "_train", breaks)
        summary, _ = study.run()
    assert len(summary.failed) == 4
    assert study.numbers() == before  # To somebody who looks at the files.
    work = str(study.folder / "work")
    assert main(["table", work]) == 2
    assert "4 trials are stale: the config file's code changed" in capsys.readouterr().err
    assert main(["status", work]) == 0
    assert "0 done, 4 failed of 4 trials" in capsys.readouterr().out
    study.write()
    summary, told = study.run()
    assert (summary.ran, summary.reused, summary.failed, told) == (0, 4, {}, [])


def test_what_was_interrupted_after_an_edit_is_told_by_every_reader(study, capsys, monkeypatch):
    study.run()
    study.write_table(right=True)
    wait = []

    def stop(*_, **__):
        wait.append(1)
        raise StoreError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(workers, "execute", stop)
        with pytest.raises(StoreError, match="interrupted"):
            study.run()
    work = study.folder / "work"
    assert set(mtl.results(work)["status"]) == {"stale"} and len(mtl.results(work, "predictions")) == 0
    assert main(["status", str(work)]) == 0
    assert "0 done, 4 stale of 4 trials" in capsys.readouterr().out
    for command in (["table"], ["report"], ["plot"], ["table", "--format=csv"]):
        assert main([command[0], str(work), *command[1:]]) == 2
        said = capsys.readouterr()
        reason = f"4 trials are stale: the data changed ({study.table}); run `mtl sweep` again"
        assert said.out == "" and reason in said.err
    config = [f"--config={study.file}", f"--workdir={work}"]
    assert main(["sweep", *config, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "4 trials, 4 to run" in said and f"4 trials are stale: the data changed ({study.table}); to be run" in said
    # Half of them done: the others are left out, and that is said.
    one = min(by_hand.results(work))
    fingerprint = next(iter(Workdir(work).study()["sweeps"]["s"]["fingerprints"].values()))
    by_hand.change(work, one, lambda content: content | {"fingerprint": fingerprint})
    assert main(["table", "--full", str(work)]) == 0
    said = capsys.readouterr()
    assert f"3 trials are stale: the data changed ({study.table}); left out" in said.err and "1/2" in said.out


def result_in(said):
    """Return the result that ``mtl run`` prints last."""
    return json.loads(said[said.index('{\n "hash"') :])


def test_a_single_run_is_run_again_too(study, capsys):
    command = ["run", f"--config={study.file}", f"--workdir={study.folder / 'one'}"]
    assert main(command) == 0
    first = result_in(capsys.readouterr().out)
    study.write_table(right=True)
    look_again()  # As in a new process.
    assert main(command) == 0
    said = capsys.readouterr()
    assert f"1 trial is stale: the data changed ({study.table})" in said.out + said.err
    second = result_in(said.out)
    assert first["hash"] == second["hash"] and first["val_score"] != second["val_score"]


def test_the_address_is_the_resolved_config_alone(study):
    hashes = []
    for edit in (lambda: None, lambda: study.write_table(right=True), lambda: study.write(width=5)):
        edit()
        summary, _ = study.run()
        hashes.append([m.trial.hash for m in summary.sweep.members])
    assert hashes[0] == hashes[1] == hashes[2]


def test_versions_processor_and_device_are_told_and_make_nothing_stale(study):
    study.run()
    work = study.folder / "work"

    def elsewhere(content):
        versions = content["versions"] | {"jax": "0.0.1"}
        return content | {"versions": versions, "cpu": "Old 386", "device": "abacus", "machine": "wood"}

    by_hand.change(work, min(by_hand.results(work)), elsewhere)
    summary, told = study.run()
    assert (summary.ran, summary.reused, told) == (0, 4, [])
    notes = " ".join(collect(Workdir(work), "s").data_notes)
    for part in ("several jax: ", "0.0.1 (1 trial)", "(3 trials)", "Old 386 (1 trial)", "abacus (wood), placement map"):
        assert part in notes
    main(["report", str(work)])
    page = (work / "report.html").read_text()
    assert "0.0.1" in page and "Old 386" in page and "trained with" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda s: s.write_table(right=True), "the data changed"),
        (lambda s: s.write(width=5), "the config file's code changed"),
        (lambda s: s.table.unlink(missing_ok=True), "t.csv"),
        (lambda s: s.file.write_text("def get_config(:"), "cfg.py"),
    ],
    ids=["data", "config", "no data", "a config that is none"],
)
def test_a_worker_that_starts_after_an_edit_ends_with_a_sentence(study, monkeypatch, edit, said):
    give = workers.WorkerPool._give

    def edited(pool, *arguments):
        edit(study)
        give(pool, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(workers.WorkerPool, "_give", edited)
        with pytest.raises(StoreError, match=said) as error:
            study.run(jobs=2)
    assert "\n" not in str(error.value)
    assert not by_hand.shards(study.folder / "work") and not list(study.folder.glob("work/trials/*/*.json"))
    study.write_table()
    study.write()
    summary, told = study.run(jobs=2)
    assert (summary.ran, summary.failed, told) == (4, {}, [])
    summary, _ = study.run("alone")
    assert study.numbers() == study.numbers("alone")


@pytest.mark.slow
def test_two_workers_replace_what_is_stale(study):
    study.run(jobs=2)
    study.write_table(right=True)
    summary, told = study.run(jobs=2)
    assert (summary.ran, summary.failed) == (4, {}) and told[0].startswith("4 trials are stale: the data changed")
    study.run("new")
    assert study.numbers() == study.numbers("new")


def test_processes_that_run_together_must_have_the_same(study, monkeypatch):
    """Of several processes each reads its own files; what process 0 says is stood in for here."""
    study.run()
    theirs = Workdir(study.folder / "work").study()["sweeps"]["s"]["fingerprints"].values()
    study.write_table(right=True)
    said = iter([list(theirs)])
    monkeypatch.setattr(
        "mtl.sweep.launch.agree", lambda own: next(said) if isinstance(own, list) and isinstance(own[0], dict) else own
    )
    with pytest.raises(StoreError, match=r"do not have the same: in this process the data changed \(.*t\.csv\)"):
        study.run()


def test_without_the_comparison_the_wrong_number_is_re_used(study, monkeypatch):
    """The control."""
    study.run()
    before = study.numbers()
    study.write_table(right=True)
    monkeypatch.setattr("mtl.sweep.store.changed", lambda then, now: "")
    summary, told = study.run()
    assert (summary.reused, told, study.numbers()) == (4, [], before)
