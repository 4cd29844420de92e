"""What comes from outside: hostile files, and mistakes on the command line."""

from __future__ import annotations

import os
import random
import re
import string
import subprocess
import sys
import time
from pathlib import Path

from outcome import Outcome
from study import Study, read, wait

import mtl.cli
from mtl.config import default, flatten


def hostile(examples: int) -> Outcome:
    """Run the tests of hostile files, with so many examples a property."""
    outcome = Outcome("hostile files", "no code run, nothing outside, memory bounded")
    root = Path(__file__).parents[2]
    tests = sorted(str(path) for path in (root / "tests" / "sweep").glob("test_hostile*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=root, env=os.environ | {"MTL_FUZZ": str(examples)}, capture_output=True, text=True, check=False
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    outcome.runs = int(passed.group(1)) if passed else 0
    outcome.figures["random files a property"] = examples
    outcome.expect(done.returncode == 0, done.stdout[-2000:])
    return outcome


BAD_VALUES = [
    *("lr=nan", "lr=inf", "lr=-1", "lr=0", "lr=abc", "lr=", "source_lr=nan", "seed=-1", "seed=1.5", "seed=x"),
    *("batch_size=0", "batch_size=-4", "batch_size=1.5", "evaluations=0", "evaluations=-1", "accumulate=0"),
    *("regime=", "regime=fine-tune", "model.name=", "model.name=cnnn", "data.name=mnits", "data.target=odd"),
    *("data.target_size=0", "data.target_size=-5", "data.target_size=1000000", "data.val_fraction=2"),
    *("data.val_fraction=nan", "data.test_size=-1", "optimizer.name=adamm", "optimizer.weight_decay=-1"),
    *("optimizer.weight_decay=nan", "select=frist", "select=", "source.total_steps=-1", "target.total_steps=nan"),
    *("data.source=nothing", "data.normalize=maybe", "save_model=perhaps", "report.margin=-1", "metric=acuracy"),
]


def mistakes(study: Study, typos: int, rng: random.Random) -> Outcome:
    """Misspell fields and give values that cannot be: each is refused in a sentence before anything is written."""
    outcome = Outcome("config mistakes through the command line", "refused, <= 5 s, <= 3 lines, >= 95 % suggested")
    fields = sorted(k for k, v in flatten(default()).items() if isinstance(v, (int, float, str)) and k != "name")
    suggested = tried = 0
    for _ in range(typos):
        field = rng.choice(fields)
        wrong = misspelt(field, rng)
        if wrong in fields:
            continue
        code, text, seconds = command(study, f"--config.{wrong}=1")
        refused(outcome, wrong, code, text, seconds)
        tried += 1
        suggested += f'"{field}"' in text or f'"{field.rpartition(".")[2]}"' in text
    for i, value in enumerate(BAD_VALUES):
        # Now and then from the start of a process, Python and imports included, as people see it.
        code, text, seconds = (process if i % 8 == 0 else command)(study, f"--config.{value}")
        refused(outcome, value, code, text, seconds)
    outcome.figures["right suggestions"] = f"{suggested} of {tried}"
    outcome.expect(suggested >= 0.95 * tried, f"right suggestions: {suggested} of {tried}")
    return outcome


def misspelt(field: str, rng: random.Random) -> str:
    """Return a field with one letter of its last part left out, doubled, changed, or swapped with the next."""
    head, dot, last = field.rpartition(".")
    at = rng.randrange(len(last))
    letter = rng.choice(string.ascii_lowercase)
    ways = [last[:at] + last[at + 1 :], last[:at] + last[at] + last[at:], last[:at] + letter + last[at + 1 :]]
    if at + 1 < len(last):
        ways.append(last[:at] + last[at + 1] + last[at] + last[at + 2 :])
    return head + dot + rng.choice(ways)


def command(study: Study, argument: str) -> tuple[int, str, float]:
    """Run `mtl run` with an argument and return (exit code, what it said, seconds)."""
    work, begun = study.new(), time.monotonic()
    said = work.with_suffix(".txt")
    child = os.fork()
    if not child:
        code = 70
        try:
            with open(said, "w", buffering=1) as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
            code = mtl.cli.main(["run", f"--config={study.config}", f"--workdir={work}", argument])
        finally:
            os._exit(code)
    code = wait(child)
    text = read(said)
    return code if not work.exists() else 71, text, time.monotonic() - begun


def process(study: Study, argument: str) -> tuple[int, str, float]:
    """Run `mtl run` in a process of its own, as ``command`` does in a fork of this one."""
    work, begun = study.new(), time.monotonic()
    words = [sys.executable, "-m", "mtl.cli", "run", f"--config={study.config}", f"--workdir={work}", argument]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    return done.returncode if not work.exists() else 71, done.stdout + done.stderr, time.monotonic() - begun


def refused(outcome: Outcome, what: str, code: int, text: str, seconds: float) -> None:
    """Note what is wrong with a refusal."""
    outcome.runs += 1
    outcome.most("slowest, s", seconds)
    outcome.expect(code == 2, f"{what}: exit code {code}: {text[-200:]}")
    outcome.expect(text.count("\n") <= 3 and seconds <= 5, f"{what}: {text.count(chr(10))} lines, {seconds:.1f} s")
