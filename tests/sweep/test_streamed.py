"""A prepared set that is streamed, through the command line: the results of the set in memory, and bounded memory."""

import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest

pytest.importorskip("grain", reason='needs the extra: pip install "mtl[stream]"')
pytest.importorskip("tensorflow_datasets", reason='needs the extra: pip install "mtl[tfds]"')
pytest.importorskip("array_record", reason='needs the extra: pip install "mtl[tfds]"')

from mtl.cli import main
from mtl.data.tfds.prepare import prepare
from mtl.sweep.store import Workdir
from tests.sweep.test_interrupts import until_it_trains

CONFIG = """
from mtl.config import default
from mtl.sweep import product, sweep
from mtl.train import stream

stream.WINDOW_BYTES, stream._MOST_STEPS = 2**16, 4  # Many windows.

def get_config():
    c = default()
    c.name = "roads"
    c.data.name = "tfds:road_scenes"
    c.data.options = {"labels": ("stop_sign", "car"), "directory": %r, "stream": True}
    c.data.source, c.data.target = ("stop_sign",), "car"
    c.data.target_size, c.data.target_pool, c.data.test_size = 400, 450, 150
    c.data.source_size, c.data.source_val_size = 100, 20
    c.data.normalize = "standardize"
    c.model.options = {"hidden": (8,)}
    c.source.total_steps, c.target.total_steps, c.evaluations = 30, 20, 2
    return c

def sweep_rates():
    return product(sweep("regime", ("scratch", "finetune")), sweep("seed", range(2)), sweep("lr", (1e-3, 1e-2)))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare("road_scenes", str(folder), examples=700, size=16, quality=90)
    file = folder / "roads.py"
    file.write_text(CONFIG % str(folder))
    return file


def of(workdir):
    """Return everything that is no name, place or time of a work directory's only trial."""
    held = Workdir(workdir)
    (digest,) = held.hashes()
    result = held.result(digest)
    phases = [{k: p[k] for k in ("train_loss", "val_loss", "evaluated_at", "examples")} for p in result["phases"]]
    outputs = {k: a.tobytes() for k, a in held.predictions(digest, result["config"]["data"]["target"]).items()}
    return {k: result[k] for k in ("val_score", "test", "fingerprint", "status")}, phases, outputs


@pytest.mark.slow
def test_a_streamed_set_gives_the_results_of_the_set_in_memory(config, tmp_path, capsys):
    for name, stream in (("a", "true"), ("b", "false")):
        options = [f"--workdir={tmp_path / name}", f"--config.data.options.stream={stream}", "--quiet"]
        assert main(["run", f"--config={config}", *options]) == 0, capsys.readouterr().err
    assert of(tmp_path / "a") == of(tmp_path / "b")


def test_what_cannot_be_streamed_is_said_in_one_sentence(config, tmp_path):
    cases = {
        "--config.data.name=digits": 'data "digits" has no option "directory"',
        "--config.data.options.stream=perhaps": "stream = 'perhaps': must be True or False",
    }
    for option, line in cases.items():
        process = command(config, tmp_path / "w", option)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2 and line in err and err.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_a_damaged_set_is_refused_before_anything_is_compiled(config, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(config.parent / "road_scenes", folder / "road_scenes")
    (file,) = (folder / "road_scenes").glob("*/*/*.array_record-*")
    held = file.read_bytes()
    at = held.index(b"\xff\xd8\xff", len(held) // 2)  # An image is none any more.
    file.write_bytes(held[:at] + b"\0" * 3 + held[at + 3 :])
    process = command(config, tmp_path / "w", f"--config.data.options.directory={folder}")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "prepare it again" in err and err.count("\n") == 1, err


def command(config, workdir, *options):
    arguments = [sys.executable, "-m", "mtl.cli", "run", f"--config={config}", f"--workdir={workdir}"]
    return subprocess.Popen([*arguments, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_streamed_run_that_is_interrupted_goes_on_to_the_same_bits(config, tmp_path):
    steps = ["--config.target.total_steps=2500", "--config.regime=scratch"]

    def ends(process):
        _, err = process.communicate(timeout=300)
        return process.returncode, err

    assert ends(command(config, tmp_path / "whole", "--quiet", *steps))[0] == 0
    broken = command(config, tmp_path / "broken", *steps)
    until_it_trains(broken)
    broken.send_signal(signal.SIGTERM)
    code, err = ends(broken)
    assert code == 143, err
    assert list((tmp_path / "broken" / "snapshots").iterdir())
    assert ends(command(config, tmp_path / "broken", "--quiet", *steps))[0] == 0
    assert of(tmp_path / "broken") == of(tmp_path / "whole")


@pytest.mark.slow
def test_a_sweep_streams_to_the_same_table(config, tmp_path, capsys):
    tables = []
    for name, stream in (("a", "true"), ("b", "false")):
        options = [f"--workdir={tmp_path / name}", f"--config.data.options.stream={stream}"]
        assert main(["sweep", f"--config={config}", "--sweep=rates", *options]) == 0, capsys.readouterr().err
        capsys.readouterr()
        assert main(["table", str(tmp_path / name), "--format=csv"]) == 0
        lines = capsys.readouterr().out.splitlines()
        tables.append([line for line in lines if not line.startswith("cost,")])  # Its seconds differ.
    assert tables[0] == tables[1] and len(tables[0]) == 5  # The head, the decision, and what was measured.


MEMORY = """
import sys
from mtl.cli import main
examples, folder, stream = int(sys.argv[1]), sys.argv[2], sys.argv[3]
config = f'''
from mtl.config import default

def get_config():
    c = default()
    c.name = "memory"
    c.data.name = "tfds:road_scenes/examples_{examples}-quality_90"
    c.data.options = {{"labels": ("stop_sign", "car"), "directory": {folder!r}, "stream": {stream}}}
    c.data.source, c.data.target, c.regime = ("stop_sign",), "car", "scratch"
    c.data.target_size = c.data.target_pool = {examples} - 1200
    c.data.val_fraction = 1000 / c.data.target_size
    c.data.test_size, c.data.source_size, c.data.source_val_size = 1100, 1, 0
    c.model.options, c.source.total_steps, c.target.total_steps, c.evaluations = {{"hidden": (8,)}}, 1, 60, 2
    return c
'''
open(f"{folder}/memory.py", "w").write(config)
assert main(["run", f"--config={folder}/memory.py", f"--workdir={folder}/work-{examples}-{stream}", "--quiet"]) == 0
(line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(line.split()[1]) / 1024)  # Not ru_maxrss: that begins with the peak of the process that started this one.
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process's memory from /proc")
def test_the_memory_of_a_stream_does_not_grow_with_the_set(tmp_path):
    peaks = {}
    for examples in (4000, 12000):
        prepare("road_scenes", str(tmp_path), examples=examples, quality=90)
    for examples, stream in ((4000, True), (12000, True), (12000, False)):
        run = [sys.executable, "-c", MEMORY, str(examples), str(tmp_path), str(stream)]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks[examples, stream] = float(done.stdout.split()[-1])
    more = 8000 * 64 * 64 * 3 * 4 / 2**20  # MiB that the inputs grow by.
    assert peaks[12000, True] - peaks[4000, True] < 0.15 * more, peaks
    assert peaks[12000, False] - peaks[12000, True] > more, peaks


HOSTS = """
import atexit, os
import numpy as np
import mtl.data
from mtl.config import default
from mtl.data import Streamed, make_table
from mtl.tasks import Task
from mtl.train import stream

stream.WINDOW_BYTES, stream._MOST_STEPS = 2**13, 4
X = np.random.default_rng(0).normal(size=(2000, 20)).astype(np.float32)
read = [0]

def rows_of(rows):
    read[0] += len(rows)
    return X[rows]

atexit.register(lambda: open(os.path.join(os.environ["READS"], str(os.getpid())), "w").write(str(read[0])))

@mtl.data.register("mine")
def table(streamed: bool):
    tasks = [Task("up", "binary"), Task("right", "binary")]
    x = Streamed(X.shape, rows_of) if streamed else X
    return make_table("mine", x, tasks, {"up": X[:, 0] > 0, "right": X[:, 1] > 0})

def get_config():
    c = default()
    c.data.normalize = "none"  # Statistics are each host's own reading of all training rows.
    c.name, c.regime = "mine", "scratch"
    c.data.name, c.data.source, c.data.target = "mine", ("up",), "right"
    c.data.options = {"streamed": True}
    c.data.target_size = c.data.target_pool = 1700
    c.data.val_fraction, c.data.test_size, c.data.source_size, c.data.source_val_size = 0.1, 100, 200, 0
    c.model.options = {"hidden": (8,)}
    c.source.total_steps, c.target.total_steps, c.evaluations = 1, 100, 2
    return c
"""


@pytest.mark.slow
def test_each_host_reads_its_own_part_and_the_bits_are_those_of_memory(tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(HOSTS)
    reads = {}
    for name, streamed, hosts in (("two", "true", 2), ("held", "false", 2), ("one", "true", 1)):
        (tmp_path / f"reads-{name}").mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        together = [f"--coordinator=127.0.0.1:{port}", f"--processes={hosts}"] if hosts > 1 else []
        run = [sys.executable, "-m", "mtl.cli", "run", f"--config={config}", f"--workdir={tmp_path / name}", "--quiet"]
        run += [f"--config.data.options.streamed={streamed}", *together]
        environment = {**os.environ, "READS": str(tmp_path / f"reads-{name}")}
        each = [[*run, *([f"--process={i}"] if together else [])] for i in range(hosts)]
        started = [subprocess.Popen(one, env=environment, stderr=subprocess.PIPE, text=True) for one in each]
        for process in started:
            _, err = process.communicate(timeout=200)
            assert process.returncode == 0, err
        reads[name] = [int(file.read_text()) - 2000 for file in (tmp_path / f"reads-{name}").iterdir()]
    assert of(tmp_path / "two") == of(tmp_path / "held")
    (alone,) = reads["one"]
    # One pass over all rows, taken off above, serves the table's sha256 and the search for copies.
    assert alone > 2500 and len(reads["two"]) == 2 and max(reads["two"]) < 0.65 * alone, reads
