"""Files that are not as they were written: full disks, flipped bits, cut, empty and strange files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
from pathlib import Path

from outcome import Outcome
from study import Study, numbers, run_again, shards, snapshots_often, stamps, wait

import mtl
from mtl.checkpoint import CheckpointError, load_tree
from mtl.host import files
from mtl.sweep.snapshots import Interrupt, Snapshots
from mtl.sweep.store import StoreError, Workdir


def full_disks(study: Study, sizes: int, rng: random.Random) -> Outcome:
    """A disk with room for so many bytes, in turn by the system's own limit on a file and by an injected ENOSPC."""
    outcome = Outcome("disk full", "one line, what was written is good, continues after")
    whole = sum(p.stat().st_size for p in study.whole.rglob("*") if p.is_file())
    largest = max(p.stat().st_size for p in [*study.whole.glob("trials/*/*"), *shards(study.whole)])
    for i in range(sizes):
        work = study.new()
        if i % 2:
            size = rng.randrange(100, largest)
            code, text = study.run(work, lambda size=size: limit_files(size))
        else:
            size = rng.randrange(100, whole)
            code, text = study.run(work, lambda size=size: limit_disk(size))
        lines = [line for line in text.splitlines() if line.startswith("mtl: ")]
        if code:
            outcome.expect(code == 2 and len(lines) == 1, f"{size} bytes: exit code {code}: {text[-300:]}")
            outcome.expect("Traceback" not in text, f"{size} bytes: a traceback: {text[-300:]}")
            outcome.count("refused")
        before = stamps(work)
        wrong = study.is_right(work)
        outcome.expect(not wrong, f"{size} bytes: {wrong}")
        again = run_again(work, before)
        outcome.expect(not again, f"{size} bytes: done and run again: {again}")
        outcome.runs += 1
    return outcome


def limit_files(size: int) -> None:
    """Let this process write no file beyond so many bytes."""
    snapshots_often()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def limit_disk(size: int) -> None:
    """Let the disk be full after so many bytes."""
    snapshots_often()
    write, left = files._write_new, [size]

    def writing(path: Path, content: bytes) -> None:
        left[0] -= len(content)
        if left[0] < 0:
            write(path, content[: left[0]])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)

    files._write_new = writing


def flips(study: Study, number: int, reruns: int, rng: random.Random) -> Outcome:
    """Flip one bit of one file: whatever is read is what was written, or it is said."""
    outcome = Outcome("bit flips in result, model, prefix, snapshot, index", "0 silent; falls back")
    work = interrupted(study)
    pristine, _ = elsewhere(work)
    kinds: dict[str, list[Path]] = {}  # Each as often as the others: of shards there are few.
    for file in (p for p in sorted(work.rglob("*")) if p.is_file()):
        kinds.setdefault(file.relative_to(work).parts[0], []).append(file)
    targets = [files for kind, files in kinds.items() if kind not in ("lease", "logs")]
    for i in range(number):
        file = rng.choice(rng.choice(targets))
        good = file.read_bytes()
        flip(file, rng.randrange(8 * len(good)))
        found, said = elsewhere(work)
        if not found:
            outcome.expect(False, f"{file}: whoever reads it crashes")
        elif found != pristine:
            outcome.expect(said, f"SILENT: {file} differs")
            outcome.count("seen")
            if i < reruns:
                copy = study.new()
                shutil.copytree(work, copy)
                wrong = study.is_right(copy)
                outcome.expect(not wrong, f"{file}: {wrong}")
                outcome.count("made again with equal bits", not wrong)
                shutil.rmtree(copy)
        else:
            outcome.count("told, value the same" if said else "harmless (white space, unused)")
        file.write_bytes(good)
        outcome.runs += 1
    return outcome


def flip(file: Path, bit: int) -> None:
    """Flip a bit of a file."""
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def interrupted(study: Study) -> Path:
    """Return a work directory with results, shared phases and a snapshot of a pack."""
    for step in range(3, 12):
        work = study.new()
        study.run(work, lambda step=step: stop_after(step))
        if any(work.glob("snapshots/*")) and shards(work) and any(work.glob("prefixes/*")):
            return work
    raise AssertionError("no interruption left all kinds of files")


def stop_after(calls: int) -> None:
    """Make this process get SIGTERM at its ``calls``-th boundary."""
    import mtl.sweep.snapshots as module

    left, boundary = [calls], module._DiskCheckpointer.boundary

    def counting(self: object, take: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        boundary(self, take)

    module._DiskCheckpointer.boundary = counting


def elsewhere(work: Path) -> tuple[str, bool]:
    """Return a digest of what ``everything`` finds, and whether anything was said, from a process of its own.

    There is no digest where that process crashed.

    Reading starts JAX's threads, and this process must stay without any: it forks.
    """
    answer = work.with_name(f"{work.name}-answer.json")
    answer.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        try:
            found, said = everything(work)
            digest = hashlib.sha256(repr(sorted(found.items(), key=lambda item: item[0])).encode()).hexdigest()
            answer.write_text(json.dumps([digest, said]))
        finally:
            os._exit(0)
    wait(child)
    digest, said = json.loads(answer.read_bytes()) if answer.exists() else ("", False)
    return digest, said


def everything(work: Path) -> tuple[dict[str, object], bool]:
    """Return all that the commands would read in a work directory, and whether anything was said to be wrong."""
    found: dict[str, object] = {}
    said: list[str] = []
    workdir = Workdir(work)

    def note(name: str, read: object) -> None:
        try:
            found[name] = read()
        except (StoreError, CheckpointError, files.FileError) as error:
            said.append(str(error))

    note("study", workdir.study)
    note("trials", workdir.hashes)
    for trial in sorted((work / "trials").iterdir()):
        name = trial.name
        note(f"result {name}", lambda name=name: {k: v for k, v in (workdir.result(name) or {}).items()})
        for task in found.get(f"result {name}", {}).get("test", {}):
            note(f"{task} {name}", lambda name=name, task=task: numbers(workdir.predictions(name, task)))
        note(f"model {name}", lambda trial=trial: weights(mtl.load(trial).weights))
    for phase in sorted((work / "prefixes").iterdir()):
        note(str(phase), lambda phase=phase: (numbers(load_tree(phase)[0]), load_tree(phase)[1]))
    kept = work.with_name(f"{work.name}-snapshots")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(work / "snapshots", kept)  # What is damaged is removed there.
    snapshots = Snapshots(kept, Interrupt(), said.append)
    for key in sorted(snapshots._where):
        note(f"snapshot {key}", lambda key=key: (snapshots.at(key), numbers(vars(snapshots.load([key]))["moving"])))
    said += workdir.damaged.values()
    return found, bool(said)


def weights(tree: object) -> dict[str, bytes]:
    """Return a trial's weights as bytes."""
    return numbers({"params": tree.params, "state": tree.state})


def strange_files(study: Study, number: int, rng: random.Random) -> Outcome:
    """Cut, empty, garbage and stray files and directories in every place; the sweep must come to the same bits."""
    outcome = Outcome("cut, empty, garbage, lost, stray files and directories", "newest good state used, bits equal")
    source = interrupted(study)
    targets = [p for p in sorted(source.rglob("*")) if p.is_file() and "lease" not in p.parts]
    cases = [(p.relative_to(source), how) for p in targets for how in ("cut", "empty", "garbage", "lost")]
    # A model that somebody removed to make room is not missed: the result stays.
    cases = [(file, how) for file, how in cases if (file.name, how) != ("model.safetensors", "lost")]
    strays = ["trials/x", "trials/x/failed.json", "trials/0123456789abcdef/model.safetensors", "results/7"]
    strays += ["results/x.safetensors", "results/00000000-x.safetensors", "results/00000007-x.safetensors"]
    strays += ["snapshots/7.safetensors", "prefixes/7.safetensors", "prefixes/.half.1.tmp", "notes.txt"]
    strays += ["packs/x.json", "lease/x.json"]
    cases += [(Path(stray), how) for stray in strays for how in ("stray file", "stray directory")]
    for relative, how in rng.sample(cases, min(number, len(cases))):
        work = study.new()
        shutil.copytree(source, work)
        file = work / relative
        content = file.read_bytes() if file.is_file() else b"x" * 100
        if how == "lost":
            file.unlink()
        elif how == "stray directory":
            file.mkdir(parents=True, exist_ok=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            bad = {"cut": content[: len(content) // 2], "empty": b"", "garbage": rng.randbytes(len(content))}
            file.write_bytes(bad.get(how, b"stray"))
        wrong = study.is_right(work)
        outcome.expect(not wrong, f"{relative} {how}: {wrong}")
        outcome.runs += 1
        shutil.rmtree(work)
    outcome.figures["cases"] = len(cases)
    return outcome
