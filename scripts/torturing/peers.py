"""Two processes that run together, one of which dies."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import time

from outcome import Outcome
from study import Study, kill, read, snapshots_often, wait

from mtl.host.witness import LOST

#: How long a sentence of the other's death may take, in seconds.
PATIENCE = 60


def deaths(study: Study, number: int, rng: random.Random) -> Outcome:
    """Kill one of two processes at a random time: the other says so and ends; one process goes on to the end."""
    outcome = Outcome("a process of a two-process run dies", "the other ends within 60 s, one sentence; goes on")
    while outcome.runs < number:
        work = study.new()
        victim = outcome.runs % 2
        where = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2", "--start-timeout=20"]
        both = [study.begin(work, together, extra=[*where, f"--process={i}"]) for i in range(2)]
        # At a random time once there is a snapshot, and now and then before the first.
        end = time.monotonic() + 60
        while rng.random() < 0.99 and not any(work.glob("snapshots/*.safetensors")) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.5))
        kept = any(work.glob("snapshots/*.safetensors"))
        # Who waits for one that has not joined yet hears nothing of its death, and says so when its patience ends.
        joined = (work / "study.json").exists()
        kill(both[victim][0])
        begun = time.monotonic()
        died = wait(both[victim][0]) == -9
        code = wait(both[1 - victim][0])
        seconds = time.monotonic() - begun
        if not died:  # It had ended.
            shutil.rmtree(work, ignore_errors=True)
            outcome.count("after its end")
            continue
        # Its witness outlives it by the time that reading and printing take.
        while LOST not in (text := read(both[1 - victim][1])) and joined and time.monotonic() - begun < PATIENCE:
            time.sleep(0.05)
        outcome.most("slowest end of the other, s", seconds)
        outcome.expect(code != 0 and seconds <= 60, f"{work}: exit code {code} after {seconds:.0f} s")
        sentences = text.count(LOST) + (not joined and text.count("(--start-timeout)"))
        outcome.expect(sentences == 1 and "Traceback" not in text, f"{work}: {text[-500:]}")
        outcome.count("before they had joined", not joined)
        outcome.count("with a snapshot left", kept)
        outcome.count("of the coordinator", victim == 0)
        code, text = study.run(work)
        outcome.expect(code == 0, f"{work}: one process does not go on: exit code {code}: {text[-300:]}")
        outcome.runs += 1
        shutil.rmtree(work, ignore_errors=True)
    return outcome


def free_port() -> int:
    """Return a port that nobody listens on, of those that systems give to nobody who asks for any."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as bound, contextlib.suppress(OSError):
            bound.bind(("127.0.0.1", port))
            return port


def together() -> None:
    """Run with a device a process."""
    import jax

    snapshots_often()
    os.environ.update(SEEDS="1", REGIMES="finetune")
    jax.config.update("jax_num_cpu_devices", 1)
