"""The study that is tortured, and running `mtl` on it in a process of its own, with a fault in it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mtl.cli
import mtl.commands.read
import mtl.report.publish
import mtl.sweep.launch
import mtl.sweep.snapshots
from mtl.checkpoint import dump_tree, load_tree
from mtl.params import flatten

CONFIG = """
import os
from mtl.config import default
from mtl.sweep import product, sweep

def get_config():
    c = default()
    c.name = "tortured"
    c.model.options = {"hidden": (4,)}
    c.data.test_size = 40
    c.source.total_steps = 300
    c.target.total_steps = STEPS
    c.evaluations = 2
    c.optimizer.name = os.environ.get("OPTIMIZER", "adam")
    return c

def sweep_main():
    rates = [float(r) for r in os.environ.get("RATES", "0.001").split(",")]
    return product(
        sweep("regime", os.environ.get("REGIMES", "scratch,finetune").split(",")),
        sweep("seed", range(int(os.environ.get("SEEDS", "2")))),
        sweep("lr", rates),
    )
"""


class Study:
    """A config file, its results when nothing disturbs it, and how to run it.

    Attributes:
      folder: where everything lies.
      bits: the bits of the undisturbed results.
    """

    def __init__(self, folder: Path, steps: int = 600, **environment: str) -> None:
        """Write the config and run it."""
        self.folder, self.environment = folder, environment
        folder.mkdir(parents=True)
        self.config = folder / "tortured.py"
        self.config.write_text(CONFIG.replace("STEPS", str(steps)))
        self._number = 0
        self.whole = self.new()
        code, text = self.run(self.whole)
        assert code == 0, text
        self.bits = bits(self.whole)

    @functools.cached_property
    def seconds(self) -> float:
        """How long the undisturbed sweep takes, now that it is compiled."""
        begun = time.monotonic()
        code, text = self.run(self.new())
        assert code == 0, text
        return time.monotonic() - begun

    def new(self) -> Path:
        """Return a work directory that is not there yet."""
        self._number += 1
        return self.folder / f"work-{os.getpid()}-{self._number}"  # Rows that run at once share a study.

    def begin(
        self, work: Path, fault: Callable[[], None] = lambda: None, jobs: int = 0, extra: Sequence[str] = ()
    ) -> tuple[int, Path]:
        """Start a sweep in a process forked from this one (which has imported everything and computed nothing).

        Returns:
          Its id, and the file of what it says.
        """
        said = work.with_name(f"{work.name}.{time.monotonic_ns()}.txt")
        arguments = ["sweep", f"--config={self.config}", f"--workdir={work}", f"--jobs={jobs}", *extra]
        child = os.fork()
        if child:
            return child, said
        code = 70
        try:
            with open(said, "w", buffering=1) as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
            os.environ.update(self.environment)
            # Reports are made from results that are there: they are not what is tortured.
            mtl.commands.read.print_study = lambda *_: []
            fault()
            code = mtl.cli.main(arguments)
        finally:
            os._exit(code)

    def run(
        self, work: Path, fault: Callable[[], None] = lambda: None, jobs: int = 0, extra: Sequence[str] = ()
    ) -> tuple[int, str]:
        """Run a sweep to its end and return (exit code, or minus the signal; what it said)."""
        child, said = self.begin(work, fault, jobs, extra)
        return wait(child), read(said)

    def is_right(self, work: Path) -> str:
        """Run the sweep undisturbed and return what is wrong with its results; nothing if they have the bits."""
        code, text = self.run(work)
        if code:
            return f"exit code {code}: {text[-300:]}"
        found = bits(work)
        if found != self.bits:
            wrong = sorted(d for d in self.bits.keys() | found.keys() if self.bits.get(d) != found.get(d))
            return f"other bits than undisturbed: {wrong}"
        return ""


def wait(child: int) -> int:
    """Return a child's exit code, or minus the signal that ended it; one that hangs is ended after two minutes."""
    end = time.monotonic() + 120
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        time.sleep(0.005)
        if time.monotonic() > end:
            kill(child, signal.SIGABRT)
    return os.waitstatus_to_exitcode(ended[1])


def kill(child: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a child, unless it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def read(said: Path) -> str:
    """Return what a process said."""
    return said.read_text(errors="replace") if said.exists() else ""


def bits(work: Path) -> dict[str, str]:
    """Return the sha256 of the model, predictions and losses of each of the sweep's trials that is done, by hash."""
    found = {}
    newest = {name: told for shard in shards(work) for name, told in read_shard(shard).items()}
    index = work / "study.json"
    listed = json.loads(index.read_bytes())["sweeps"].get("main", {"trials": []})["trials"] if index.exists() else []
    for name in (trial["hash"] for trial in listed if trial["hash"] in newest):
        result, predictions = newest[name]
        model = work / "trials" / name / "model.safetensors"
        digest = hashlib.sha256(model.read_bytes() if model.is_file() else b"none")
        digest.update(repr(sorted(numbers(predictions).items())).encode())
        curves = [(p["train_loss"], p["val_loss"]) for p in result["phases"]]
        digest.update(json.dumps([result.get("test"), result["val_score"], curves]).encode())
        found[name] = digest.hexdigest()
    return found


def shards(work: Path) -> list[Path]:
    """Return the files of results, the oldest first."""
    return sorted(work.glob("results/[0-9]*.safetensors"))


def read_shard(shard: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return (result, predictions) by hash, without the code that keeps them; nothing of what cannot be read."""
    try:
        tree, _ = load_tree(shard)
        told = json.loads(tree["results"].tobytes())
    except ValueError:  # Damaged, or a stray.
        return {}
    return {name: (result, tree.get("predictions", {}).get(name, {})) for name, result in told.items()}


def forget(work: Path, digest: str) -> None:
    """Remove a trial from the shards, as if it had never come to a result; they are sealed again."""
    for shard in (file for file in shards(work) if digest in read_shard(file)):
        tree, about = load_tree(shard)
        told = {name: result for name, result in json.loads(tree["results"].tobytes()).items() if name != digest}
        tree["results"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
        del tree["predictions"][digest]
        shard.write_bytes(dump_tree(tree, about))


def stamps(work: Path) -> dict[str, list[tuple[str, int]]]:
    """Return what changes when a trial is run again, by hash: the name and time of each shard that holds it."""
    found: dict[str, list[tuple[str, int]]] = {}
    for shard in shards(work):
        for name in read_shard(shard):
            found.setdefault(name, []).append((shard.name, shard.stat().st_mtime_ns))
    return found


def run_again(work: Path, before: Mapping[str, list[tuple[str, int]]]) -> list[str]:
    """Return the trials that have been written since ``stamps`` were taken, though they were there."""
    now = stamps(work)
    return sorted(name for name, stamp in before.items() if now.get(name) != stamp)


def twice(work: Path) -> list[str]:
    """Return the trials that are in more than one shard."""
    return sorted(name for name, stamp in stamps(work).items() if len(stamp) > 1)


def numbers(tree: object) -> dict[str, bytes]:
    """Return a tree's arrays as bytes."""
    flat = {k: np.asarray(v) for k, v in flatten(tree).items()}
    return {k: v.tobytes() + f"{v.dtype}{v.shape}".encode() for k, v in flat.items()}


def snapshots_often() -> None:
    """Keep a snapshot at every boundary, so that faults meet them."""
    mtl.sweep.snapshots.EVERY_SECONDS = 0.0
