"""Tox21 as a data set of TFDS: what was prepared is what DeepChem's file holds, and only that file is taken."""

import hashlib
import http.server
import pathlib
import threading

import numpy as np
import pytest

from mtl import data
from mtl.cli import main
from mtl.data import DataError
from tests.data.shared import folder_with

tfds = pytest.importorskip("tensorflow_datasets", reason='needs the extra: pip install "mtl[tfds]"')
pytest.importorskip("array_record", reason='needs the extra: pip install "mtl[tfds]"')

from mtl.data.tfds import tox21_recipe  # noqa: E402
from mtl.data.tfds.prepare import prepare  # noqa: E402

ASSAYS = ("NR-*:binary", "SR-*:binary")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    source = folder_with("tox21.csv.gz")
    folder = tmp_path_factory.mktemp("tfds")
    assert main(["data", "prepare", "tox21", f"--data-dir={folder}", "bins=64", f"directory={source}"]) == 0
    return folder


def test_what_was_prepared_is_deepchems_file(prepared):
    plain = data.load("tox21", directory=folder_with("tox21.csv.gz"), bins=64)
    with pytest.warns(UserWarning, match="are taken as one group"):  # c and C are one letter to a reader of texts.
        table = data.load("tfds:tox21", labels=ASSAYS, inputs="ngrams", groups="smiles", directory=str(prepared))
    assert table.x.tobytes() == plain.x.tobytes() and table.x.shape == (8014, 64)
    # By name: TFDS reads features in an order that changes from process to process.
    assert [(t.name, t.kind) for t in table.tasks] == sorted((t.name, t.kind) for t in plain.tasks)
    for task in plain.tasks:
        np.testing.assert_array_equal(table.mask[task.name], plain.mask[task.name])
        np.testing.assert_array_equal(table.labels[task.name], plain.labels[task.name])
    pairs = set(zip(table.groups.tolist(), plain.groups.tolist(), strict=True))
    assert len(pairs) == len(np.unique(plain.groups)) == 7831  # No molecule is parted,
    assert len(np.unique(table.groups)) == 7788  # and few are put together.
    assert "Huang" in table.about and "17.3 % of labels missing" in table.about


def test_tfds_itself_reads_it(prepared):
    source = tfds.builder_from_directory(prepared / "tox21" / "bins_64" / "1.0.0").as_data_source(split="train")
    first = source[0]
    assert (first["smiles"], first["mol_id"]) == (b"CCOc1ccc2nc(S(N)(=O)=O)sc2c1", b"TOX3021")
    assert first["NR-AR"] == 0.0 and np.isnan(first["NR-Aromatase"])


def test_what_is_there_needs_no_source(prepared, tmp_path):
    assert prepare("tox21", str(prepared), bins=64, directory=str(tmp_path)).name == "1.0.0"


def test_without_the_file_it_is_said_where_it_comes_from(tmp_path, capsys):
    assert main(["data", "prepare", "tox21", f"--data-dir={tmp_path}", f"directory={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert "does not exist" in told and "or download=true to fetch it from https://raw" in told
    for options, line in (
        ({"bins": 0}, "bins = 0: must be from 1 to 65536"),
        ({"bins": "x"}, "bins = 'x': must be a whole number"),
        ({"bin": 3}, 'has no option "bin": did you mean "bins"'),
        ({"download": 1}, "download = 1: must be true or false"),
    ):
        with pytest.raises(DataError, match=line):
            prepare("tox21", str(tmp_path), **options)
    assert not (tmp_path / "downloads").exists()


def test_another_file_is_refused(tmp_path):
    (tmp_path / "tox21.csv.gz").write_bytes(b"smiles,NR-AR\nC,1\n")
    with pytest.raises(DataError, match=f"must be {tox21_recipe.SHA256}"):
        prepare("tox21", str(tmp_path / "out"), directory=str(tmp_path))
    assert not list((tmp_path / "out").rglob("dataset_info.json"))


@pytest.fixture(scope="module")
def real():
    """The bytes of DeepChem's file; looked for before a test leaves the present folder."""
    return pathlib.Path(folder_with("tox21.csv.gz"), "tox21.csv.gz").read_bytes()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine, whose answers the test decides."""
    answers = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = answers.get("body")
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        monkeypatch.setattr(tox21_recipe, "URL", f"http://127.0.0.1:{running.server_port}/tox21.csv.gz")
        monkeypatch.delenv("MTL_DATA_DIR", raising=False)
        monkeypatch.chdir(tmp_path)
        yield answers
        running.shutdown()
        thread.join()


def test_what_is_fetched_must_be_the_file_that_is_meant(server, tmp_path, monkeypatch):
    out = tmp_path / "out"
    fetch = {"data_dir": str(out), "download": True, "bins": 4}
    with pytest.raises(DataError, match=r"cannot be fetched from http://127.*404"):
        prepare("tox21", **fetch)
    server["body"] = b"smiles,mol_id,NR-AR\nCCO,a,1\nCCN,b,\n"
    with pytest.raises(DataError, match="gives a file of sha256"):
        prepare("tox21", **fetch)
    monkeypatch.setattr(tox21_recipe, "_MAX_BYTES", 10)
    with pytest.raises(DataError, match="gives more than 10 bytes"):
        prepare("tox21", **fetch)
    monkeypatch.undo()
    assert not list(out.rglob("*.gz"))


@pytest.mark.slow
def test_the_right_file_is_fetched_once(real, server, tmp_path):
    server["body"] = real
    folder = prepare("tox21", data_dir=str(tmp_path / "out"), download=True, bins=4)
    kept = tmp_path / "out" / "downloads" / "tox21.csv.gz"
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == tox21_recipe.SHA256
    server["body"] = None
    assert prepare("tox21", data_dir=str(tmp_path / "out"), download=True, bins=5) != folder
