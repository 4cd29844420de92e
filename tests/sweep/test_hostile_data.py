"""Data sets and weights from strangers: what reading them takes is measured, in a process of its own for each."""

import gzip
import io
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mtl.checkpoint import CheckpointError, load_weights
from mtl.data import DataError, Picture
from mtl.data.readers.arff import arff_table, xml_labels
from mtl.data.readers.csv_file import csv_table
from mtl.data.readers.images import images_table
from mtl.data.readers.npz import npz_table
from mtl.data.readers.parquet import parquet_table
from mtl.data.tfds.prepare import prepare
from mtl.data.tfds.source import tfds_table
from tests.sweep.hostile import MIB, NPY, Bomb, npy, npz, tensor, weights, within

ROOT = pathlib.Path(__file__).parents[2]


def table(**columns):
    """Return a Parquet file of columns, without what Arrow would note of their types."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, store_schema=False, compression="zstd")
    return buffer.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, *chunks):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


ZEROS = zlib.compress(bytes(200_000_000))
LARGE = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 1000, pa.int32()), ["a" * 10**6, "b" * 10**6])
LABEL = npy(NPY % ("<f4", "(1,)"), b"abcd")
Y = "@attribute y {0,1}\n@data\n"
VALUES = "@relation r\n@attribute a {" + ",".join(f"v{i}" for i in range(200_000)) + "}\n" + Y
COLUMNS = "@relation r\n" + "".join(f"@attribute a{i} numeric\n" for i in range(3000)) + Y

#: name: (the file, whether it is refused, the MiB that reading it may take).
BOMBS = {
    "unpacks.csv.gz": (gzip.compress(bytes(300_000_000), 1), True, 400),
    "a-line-without-an-end.csv": (b"x,y\n" + b"1" * 100_000_000, True, 900),
    "commas.csv": (b"," * 10_000_000, True, 600),
    "a-quote-without-an-end.csv": (b'x,y\n"' + b"1,0\n" * 5_000_000, True, 400),
    "words.tsv": (b"t\ty\n" + b"".join(b"a%d b%d\t%d\n" % (i, i, i % 2) for i in range(250_000)), True, 400),
    "names.tsv": (b"t\ty\n" + b"".join(b"a%d\t%d\n" % (i, i % 2) for i in range(500_000)), True, 400),
    "columns.tsv": (b"".join(b"c%d\t" % i for i in range(9999)) + b"y\n" + (b"a\t" * 9999 + b"1\n") * 2, True, 400),
    "a-line-without-an-end.tsv": (b"x\ty\n" + b"1" * 90_000_000, True, 900),
    "values.arff": (VALUES.encode() + b"v1,0\nv2,1\n" * 1000, True, 400),
    "rows.arff": (COLUMNS.encode() + b"{}\n" * 200_000, True, 400),
    "unpacks.npz": (npz(x=npy(NPY % ("<f4", "(50000000, 1)"), bytes(200_000_000)), y=LABEL), True, 200),
    "rows.parquet": (table(x=np.zeros(30_000_000, np.int8), y=np.zeros(30_000_000, np.int8)), True, 200),
    "one-text.parquet": (table(x=np.zeros(2000), y=LARGE), False, 200),
    "lists.parquet": (table(x=[[1.0] * 100_000] * 100, y=[0, 1] * 50), True, 200),
    "arrays.safetensors": (weights({str(i): tensor([0], 0) for i in range(200_000)}), False, 900),
    "depth.safetensors": (weights({"a/" * 4_000_000 + "a": tensor([1], 4)}, b"abcd"), True, 200),
    "pixels.png": (png(60_000, 60_000), True, 100),
    "pixels-within-pillows-bound.png": (png(13_000, 13_000), True, 100),
    "text.png": (png(4, 4, chunk(b"zTXt", b"k\0\0" + ZEROS)), True, 100),
    "colours.png": (png(4, 4, chunk(b"iCCP", b"k\0\0" + ZEROS)), True, 100),
}


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """Return {name: (how, what was said, bytes)} of each bomb."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, (content, *_) in BOMBS.items():
        (folder / name).write_bytes(content)
        if name.endswith(".png"):
            (folder / name).with_suffix(".images").write_text(f"file,y\n{name},0\n")
    (folder / "sparse.orbax").mkdir()
    (folder / "sparse.orbax" / "d").touch()
    os.truncate(folder / "sparse.orbax" / "d", 2**30)
    done = subprocess.run(
        [sys.executable, pathlib.Path(__file__).with_name("measured.py"), folder],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return {line[0]: line[1:] for line in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BOMBS, "sparse.orbax"])
def test_memory_is_bounded(taken, name):
    _, refused, most = BOMBS.get(name, (b"", True, 200))
    how, said, grown = taken[name.replace(".png", ".images")]
    assert (how == "refused") is refused, said
    assert grown <= most * MIB, f"{grown / MIB:.0f} MiB"
    assert len(said) < 5000


# --- what is refused in a sentence that names the file ---

CSV = {
    "nul": b"x,y\n1\0,0\n",
    "a mark within": b"x,y\n\xef\xbb\xbf1,0\n",
    "two marks": b"\xef\xbb\xbf\xef\xbb\xbfx,y\n,0\n",
    "a formula": b"x,y\n=1+1,0\n",
    "a number of 5,000 digits": b"x,y\n" + b"9" * 5000 + b",0\n",
    "beyond float": b"x,y\n1e400,0\n",
    "a cell of a megabyte": b"x,y\n" + b"a" * 100_000 + b",0\n",
    "an escape": b'x,y\n"\x1b[2J\x1b]0;mine\x07\nfile ""b.csv"": is good",0\n',
    "a name twice": b"x,x,y\n1,2,0\n",
    "hexadecimal": b"x,y\n0x10,0\n",
    "100,000 classes": b"x,y\n" + b"".join(b"1,c%d\n" % i for i in range(100_000)),
}
ARFF = {
    "an index beyond": "@relation r\n@attribute x numeric\n@attribute y {0,1}\n@data\n{999999999 1}\n",
    "an index below": "@relation r\n@attribute x numeric\n@attribute y {0,1}\n@data\n{-1 1}\n",
    "an index twice": "@relation r\n@attribute x numeric\n@attribute y {0,1}\n@data\n{0 1, 0 2}\n",
    "a relation in a cell": "@relation r\n@attribute x relational\n@attribute z numeric\n@end x\n@data\n'1'\n",
    "a date": "@relation r\n@attribute x date 'yyyy'\n@attribute y {0,1}\n@data\n'2000',0\n",
    "quotes that do not end": "@relation r\n@attribute x numeric\n" + Y + "'" + "\\'" * 100_000,
    "a name of quotes": "@relation r\n@attribute " + "'a" * 100_001 + "\n@attribute y {0,1}\n@data\n1,0\n",
    "an infinite number": "@relation r\n@attribute x numeric\n@attribute y {0,1}\n@data\n1e400,0\n",
    "an escape": "@relation r\n@attribute x numeric\n@attribute y {0,1}\n@data\n\x1b[2J,0\n",
}
IMAGES = {
    "a drawing": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "a program for printers": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(executed) (w) file\n",
    "a document": b"%PDF-1.4\n1 0 obj\n",
    "nothing": b"",
    "a link in a text": b"#FIG 3.2\n",
    "no pixels": png(0, 0),
    "fewer pixels than promised": png(100, 100),
    "2^62 pixels": png(2**31 - 1, 2**31 - 1),
    "facts that lead nowhere": b"\xff\xd8\xff\xe1\x00\x10Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(8),
    "directories in a circle": b"II*\0\x08\0\0\0\x01\0\x00\x01\x03\0\x01\0\0\0\x01\0\0\0\x08\0\0\0",
    "a pickle": pickle.dumps(Bomb()),
}
NPZ = {
    "objects": npz(x=npy(NPY % ("|O", "(1,)"), b"abcd"), y=LABEL),
    "no such type": npz(x=npy(NPY % ("<f3", "(1,)"), b"abc"), y=LABEL),
    "70 dimensions": npz(x=npy(NPY % ("<f4", f"({'1,' * 70})"), b"abcd"), y=LABEL),
    "no rows": npz(x=npy(NPY % ("<f4", "(0, 99999999999)")), y=npy(NPY % ("<f4", "(0,)"))),
}
PARQUET = {
    "a footer beyond": b"PAR1" + bytes(50) + struct.pack("<I", 2**31) + b"PAR1",
    "encrypted": table(x=[1.0], y=[0])[:-4] + b"PARE",
    "nested for ever": b"PAR1" + b"\x1c" * 1_000_000 + struct.pack("<I", 1_000_000) + b"PAR1",
    "objects": table(x=[{"a": 1}], y=[0]),
    "a name twice": table(x=[1.0], y=[0]).replace(b"\x01y", b"\x01x"),
}
READERS = {"csv": csv_table, "arff": arff_table, "npz": npz_table, "parquet": parquet_table}
CASES = [
    pytest.param(
        ending,
        content if isinstance(content, bytes) else content.encode(),
        id=f"{ending}: {name}",
        marks=[pytest.mark.slow] if name == "100,000 classes" else [],
    )
    for ending, cases in (("csv", CSV), ("arff", ARFF), ("npz", NPZ), ("parquet", PARQUET))
    for name, content in cases.items()
]


@pytest.fixture(autouse=True)
def _files_beside_us(monkeypatch):
    """Data is looked for where a test runs."""
    monkeypatch.delenv("MTL_DATA_DIR", raising=False)


@pytest.mark.parametrize(("ending", "content"), CASES)
def test_what_cannot_be_is_refused(tmp_path, monkeypatch, ending, content):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"a.{ending}"
    file.write_bytes(content)
    with within(20), pytest.raises(DataError) as error:
        READERS[ending](file.name, "y")
    sentences = str(error.value).splitlines()
    assert all(s.startswith((f'file "a.{ending}"', "… and")) for s in sentences) and len(sentences) <= 21
    assert str(error.value).replace("\n", "").isprintable() and max(map(len, sentences)) < 1100
    assert os.listdir(tmp_path) == [file.name]


@pytest.mark.parametrize("content", IMAGES.values(), ids=IMAGES)
def test_what_is_no_image_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(content)
    (tmp_path / "l.csv").write_text("file,y\na.png,0\n")
    with within(20), pytest.raises(DataError, match=r'line 2, column "file": image "a\.png"') as error:
        images_table("l.csv", "y", (4, 4))
    assert "0x" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "l.csv"]


PANDAS = {
    "nested": b"[" * 100_000,
    "no object": b"[]",
    "an index that is not there": b'{"index_columns": ["z"], "columns": [], "column_indexes": []}',
    "a type that is code": b'{"index_columns":[],"columns":[{"name":"x","field_name":"x","pandas_type":"object",'
    b'"numpy_type":"os.system","metadata":null}],"column_indexes":[{"name":null,"numpy_type":"os.system"}]}',
}


@pytest.mark.parametrize("facts", PANDAS.values(), ids=PANDAS)
def test_what_pandas_is_said_to_have_left_in_a_parquet_file_is_not_believed(tmp_path, facts):
    made = pa.table({"x": [1.0, 2.0], "y": [0, 1]}).replace_schema_metadata({b"pandas": facts})
    pq.write_table(made, tmp_path / "a.parquet")
    np.testing.assert_array_equal(parquet_table(str(tmp_path / "a.parquet"), "y").x, [[1], [2]])


def test_a_pickle_as_the_type_of_a_parquet_column_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": b"cos\nsystem\n(S'touch executed'\ntR."}  # noqa: E501  # fmt: skip
    schema = pa.schema([pa.field("x", pa.float64(), metadata=facts), pa.field("y", pa.int64())])
    pq.write_table(pa.Table.from_arrays([pa.array([1.0, 2.0]), pa.array([0, 1])], schema=schema), "a.parquet")
    parquet_table("a.parquet", "y")
    assert os.listdir(tmp_path) == ["a.parquet"]


@pytest.mark.parametrize("link", ["/etc/hosts", "../outside.png", "loop.png"])
def test_an_image_that_is_a_link_out_is_not_read(tmp_path, link):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "outside.png")
    (folder / "loop.png").symlink_to(link)
    (folder / "l.csv").write_text("file,y\nloop.png,0\n")
    # Python 3.13 looks up a circle of links without a word, and finds nothing at its end.
    circle = "cannot be looked up" if sys.version_info < (3, 13) else "does not exist"
    with pytest.raises(DataError, match=f"leaves the data directory|{circle}"):
        images_table(str(folder / "l.csv"), "y", (4, 4))


XML = {
    "entities": '<!DOCTYPE a [<!ENTITY b "c">]><labels><label name="&b;"/></labels>',
    "a file from outside": '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><labels><label name="&b;"/></labels>',
    "nested and not closed": "<a>" * 100_000,
    "another alphabet": '<?xml version="1.0" encoding="bogus"?><labels/>',
}


@pytest.mark.parametrize("text", XML.values(), ids=XML)
def test_lists_of_labels_in_xml_declare_nothing(tmp_path, text):
    (tmp_path / "l.xml").write_text(text)
    with within(20), pytest.raises(DataError, match=r'file "l\.xml"'):
        xml_labels("l.xml", str(tmp_path))


FEATURES = {
    "nested": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a list": b"[]",
    "a pipe": None,
    "code of one's own": b'{"pythonClassName": "os.system"}',
    "code within": b'{"pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict", "a": [{"type": "subprocess.Popen"}]}',  # noqa: E501
    "UTF-16": '{"pythonClassName": "os.system"}'.encode("utf-16"),
}


@pytest.mark.parametrize("content", FEATURES.values(), ids=FEATURES)
def test_features_of_strangers_are_data_and_no_code(tmp_path, content):
    folder = tmp_path / "x" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text('{"fileFormat": "array_record"}')
    if content is None:
        os.mkfifo(folder / "features.json")
    else:
        (folder / "features.json").write_bytes(content)
    with within(20), pytest.raises(DataError, match="tfds:x"):
        tfds_table("x", "y", directory=str(tmp_path))


def test_the_bytes_of_an_image_start_no_program(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    with pytest.raises(DataError, match="does not decode"):
        Picture().read(IMAGES["a program for printers"])
    assert not started


def test_the_frames_of_an_image_are_not_counted():
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    assert Picture().read(head + frame + b";").shape == (1, 1, 3)
    with within(2), pytest.raises(DataError, match="several frames"):
        Picture().read(head + 1_000_000 * frame + b";")


ORBAX = {
    "a list": b"[]",
    "null": b"null",
    "nested": b"[" * 100_000,
    "a tree that is a number": b'{"tree_metadata": 5, "use_ocdbt": true}',
    "a leaf that is a text": b'{"tree_metadata": {"a": "x"}, "use_ocdbt": true}',
    "a pipe": None,
}


@pytest.mark.parametrize("content", ORBAX.values(), ids=ORBAX)
def test_an_orbax_checkpoint_of_strangers_is_one_sentence(tmp_path, content):
    if content is None:
        os.mkfifo(tmp_path / "_METADATA")
    else:
        (tmp_path / "_METADATA").write_bytes(content)
    (tmp_path / "_CHECKPOINT_METADATA").write_text('{"item_handlers": {}, "metrics": {}}')
    with within(60), pytest.raises(CheckpointError, match=str(tmp_path)) as error:
        load_weights(tmp_path)
    assert "\n" not in str(error.value)


def test_a_lock_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "in" / "road_scenes").mkdir(parents=True)
    (tmp_path / "in" / "road_scenes" / ".prepare.lock").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="cannot be written"):
        prepare("road_scenes", str(tmp_path / "in"), examples=4, size=16)
    assert (tmp_path / "outside").read_text() == "mine"
