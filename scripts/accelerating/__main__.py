"""``scripts/accelerator``: runs the checks one after the other and prints their table."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import Row
from benchmarks.show import machine

from accelerating.checks import CHECKS, Setting, most

#: Says what JAX runs on, in a process that lets go of it.
_DEVICE = """
import json, jax
first, *others = jax.devices()
print(json.dumps({"platform": first.platform, "kind": first.device_kind, "count": 1 + len(others)}))
"""


def main() -> int:
    """Run what is asked for; return 1 if a check failed, 2 if there was no way to try."""
    parser = argparse.ArgumentParser(prog="scripts/accelerator", description="Checks of mtl on this machine's device.")
    parser.add_argument("--quick", action="store_true", help="small models and few: a minute on two cores")
    parser.add_argument("--only", metavar="CHECK[,CHECK]", default="", help=f"of: {', '.join(CHECKS)}")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="checks that these have no room for are left out (10)"
    )
    parser.add_argument("--markdown", metavar="FILE", help="write the table there too")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    arguments = parser.parse_args()
    wanted = [name.strip() for name in arguments.only.split(",") if name.strip()] or list(CHECKS)
    for name in wanted:
        if name not in CHECKS:
            parser.error(f"--only={name}: there are {', '.join(CHECKS)}")
    begun = time.monotonic()

    def spent() -> float:
        return time.monotonic() - begun

    def say(text: str) -> None:
        print(f"{spent():6.1f} s  {text}", file=sys.stderr, flush=True)

    found = subprocess.run([sys.executable, "-c", _DEVICE], stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode:  # JAX has said why it finds none.
        return 2
    device = json.loads(found.stdout.splitlines()[-1])
    say(f"{device['count']} × {device['kind']} ({device['platform']})")
    rows, left_out = dict[str, list[Row]](), []
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(device["platform"], folder, arguments.quick)
        for name in wanted:
            budget = float(CHECKS[name][2 if arguments.quick else 1])
            left = 60 * arguments.minutes - spent()
            if left < budget / 2:
                left_out.append(name)
                say(f"{name}: left out, {max(0.0, left):.0f} s of {arguments.minutes:g} minutes are left")
                continue
            say(f"{name}: begun")
            rows[name] = []
            for row in _rows(name, setting, min(budget, left)):
                rows[name].append(row)
                say(f"{name}: {_cells(row)[-1] or 'not compared'}: {row.title}: {_cells(row)[3]}")
    table = _markdown([row for each in rows.values() for row in each], device, left_out)
    print(table, end="")
    if arguments.markdown:
        Path(arguments.markdown).write_text(table)
    if arguments.json:
        about = {"device": device, "machine": machine(), "command": sys.argv, "seconds": spent(), "left_out": left_out}
        about["checks"] = {name: [{**vars(row), "met": _met(row)} for row in each] for name, each in rows.items()}
        Path(arguments.json).write_text(json.dumps(_strict(about), indent=1) + "\n")
    return int(any(_met(row) is False for each in rows.values() for row in each))


def _rows(name: str, setting: Setting, seconds: float) -> Iterator[Row]:
    """Run a check in a process of its own, with all that it starts, and yield its rows as they come."""
    log = Path(setting.folder) / f"{name}.log"
    command = [sys.executable, "-m", "accelerating.checks", name, json.dumps(vars(setting))]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True) as process,
    ):

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, kill)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield Row(**json.loads(line))
            if process.wait():
                late = not timer.is_alive()
                said = log.read_text().strip().splitlines()
                why = (
                    f"not done in {seconds:.0f} s" if late else said[-1] if said else f"exit code {process.returncode}"
                )
                print(*said[-20:], sep="\n", file=sys.stderr)
                yield most(f"{name}: the check itself", math.inf, 0, why, "")
        finally:
            timer.cancel()
            kill()


def _met(row: Row) -> bool | None:
    """Return whether a check passed; nothing if there was nothing to hold it against."""
    return None if math.isnan(row.ratio[1]) else row.met


def _cells(row: Row) -> tuple[str, ...]:
    """Return a row's (what, here, reference, ratio or difference, limit, verdict)."""
    met = _met(row)
    if met is None:
        return row.title, row.ours, row.theirs, "", "", ""
    limit = f"{'≥' if row.least else '≤'} {row.target:g}"
    return row.title, row.ours, row.theirs, f"{row.ratio[1]:.3g}", limit, "pass" if met else "**fail**"


def _markdown(rows: Sequence[Row], device: dict[str, Any], left_out: Sequence[str]) -> str:
    about = machine()
    head = ["what", "this device", "reference", "ratio or difference", "limit", "verdict"]
    lines = [head, [":--", "--:", "--:", "--:", "--:", ":--"], *map(_cells, rows)]
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    if left_out:
        text += f"\nLeft out, for want of time: {', '.join(left_out)}.\n"
    versions = ", ".join(f"{name} {about['versions'][name]}" for name in ("jax", "jaxlib", "torch"))
    return f"{text}\n{device['count']} × {device['kind']} ({device['platform']}); {about['processor']}; {versions}.\n"


def _strict(value: Any) -> Any:
    """Return the same with null for numbers that JSON does not have."""
    return json.loads(json.dumps(value), parse_constant=lambda name: None)


if __name__ == "__main__":
    sys.exit(main())
