"""A prepared set that is streamed, through the command line: the results of the set in memory, and bounded memory."""

import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("grain", reason='needs the extra: pip install "mtl[stream]"')
pytest.importorskip("tensorflow_datasets", reason='needs the extra: pip install "mtl[tfds]"')
pytest.importorskip("array_record", reason='needs the extra: pip install "mtl[tfds]"')

from mtl.cli import main
from mtl.data.prepare import prepare
from mtl.sweep.store import Workdir

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
    c.data.target_size, c.data.target_pool, c.data.test_size = 100, 150, 150
    c.data.source_size, c.data.source_val_size = 300, 40
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
    (digest,) = (path.name for path in (workdir / "trials").iterdir())
    held = Workdir(workdir)
    result = held.result(digest)
    phases = [{k: p[k] for k in ("train_loss", "val_loss", "evaluated_at", "examples")} for p in result["phases"]]
    outputs = {k: a.tobytes() for k, a in held.arrays(digest).items()}
    return {k: result[k] for k in ("val_loss", "test", "data_sha256", "status")}, phases, outputs


def test_a_streamed_set_gives_the_results_of_the_set_in_memory(config, tmp_path, capsys):
    for name, stream in (("a", "True"), ("b", "False")):
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
    arguments = [sys.executable, "-m", "mtl.cli", "run", f"--config={config}", f"--workdir={workdir}", "--quiet"]
    return subprocess.Popen([*arguments, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_streamed_run_that_is_interrupted_goes_on_to_the_same_bits(config, tmp_path):
    steps = ["--config.target.total_steps=6000", "--config.regime=scratch"]
    whole = command(config, tmp_path / "whole", *steps)
    assert whole.wait(timeout=300) == 0, whole.communicate()
    for after in (0.5, 1.5):
        broken = command(config, tmp_path / "broken", *steps)
        deadline = time.monotonic() + 120
        while not (tmp_path / "broken" / "study.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(after)
        broken.send_signal(signal.SIGTERM)
        assert broken.wait(timeout=60) in (0, 143, -15), broken.communicate()
    rest = command(config, tmp_path / "broken", *steps)
    assert rest.wait(timeout=300) == 0, rest.communicate()
    assert of(tmp_path / "broken") == of(tmp_path / "whole")


@pytest.mark.slow
def test_a_sweep_streams_to_the_same_table(config, tmp_path, capsys):
    tables = []
    for name, stream in (("a", "True"), ("b", "False")):
        options = [f"--workdir={tmp_path / name}", f"--config.data.options.stream={stream}"]
        assert main(["sweep", f"--config={config}", "--sweep=rates", *options]) == 0, capsys.readouterr().err
        capsys.readouterr()
        assert main(["table", str(tmp_path / name), "--format=csv"]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]


MEMORY = """
import resource, sys
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
    c.data.test_size, c.data.source_size, c.data.source_val_size = 1100, 1, 0
    c.model.options, c.source.total_steps, c.target.total_steps, c.evaluations = {{"hidden": (8,)}}, 1, 60, 2
    return c
'''
open(f"{folder}/memory.py", "w").write(config)
assert main(["run", f"--config={folder}/memory.py", f"--workdir={folder}/work-{examples}-{stream}", "--quiet"]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_the_memory_of_a_stream_does_not_grow_with_the_set(tmp_path):
    peaks = {}
    for examples in (3000, 9000):
        prepare("road_scenes", str(tmp_path), examples=examples, quality=90)
    for examples, stream in ((3000, True), (9000, True), (9000, False)):
        run = [sys.executable, "-c", MEMORY, str(examples), str(tmp_path), str(stream)]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks[examples, stream] = float(done.stdout.split()[-1])
    more = 6000 * 64 * 64 * 3 * 4 / 2**20  # MiB that the inputs grow by.
    assert peaks[9000, True] - peaks[3000, True] < 0.15 * more, peaks
    assert peaks[9000, False] - peaks[9000, True] > more, peaks
