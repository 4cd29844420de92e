"""What the faults came to: kept as JSON, one entry a fault, and shown as a table."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def circumstances() -> dict[str, Any]:
    """Return when, where and of what code a row was made."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    load = os.getloadavg()[0]
    return {"date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}", "machine": machine(), "code": commit} | {
        "load": round(load, 1)
    }


def machine() -> str:
    """Return the CPU's model and how many cores there are."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"


def keep(file: Path, outcomes: Iterable[Mapping[str, Any]]) -> None:
    """Put rows in a JSON file; those of other faults stay."""
    known = json.loads(file.read_bytes()) if file.is_file() else []
    new = {o["row"]: o for o in outcomes}
    merged = {o["row"]: o for o in known} | new
    file.write_text(json.dumps(list(merged.values()), indent=1) + "\n")


def told(outcome: Mapping[str, Any]) -> str:
    """Return a row's figures in words."""
    return ", ".join(f"{k}: {v}" for k, v in outcome["figures"].items() if v)


def console(outcomes: Iterable[Mapping[str, Any]]) -> str:
    """Return the table for a terminal, and what was broken."""
    lines = [f"\n{'fault':58} {'tried':>6} {'broken':>6}  must hold; figures"]
    for o in outcomes:
        lines.append(f"{o['fault']:58} {o['runs']:>6} {len(o['broken']):>6}  {o['holds']}; {told(o)}; {o['seconds']} s")
    lines += [f"BROKEN {o['fault']}: {sentence}" for o in outcomes for sentence in o["broken"][:5]]
    return "\n".join(lines)


def markdown(outcomes: Iterable[Mapping[str, Any]]) -> str:
    """Return the table for a page."""
    lines = [
        "| fault | tried | broken | must hold | figures | s | CPU s | code | date |",
        "|:--|--:|--:|:--|:--|--:|--:|:--|:--|",
    ]
    for o in outcomes:
        cells = [o["fault"], f"{o['runs']:,}", len(o["broken"]), o["holds"], told(o), f"{o['seconds']:,}"]
        cells += [f"{o['cpu_seconds']:,}", f"`{o['code']}`", o["date"]]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    where = sorted({o["machine"] for o in outcomes})
    seconds, cpu = (sum(o[key] for o in outcomes) for key in ("seconds", "cpu_seconds"))
    lines.append(f"\nOn {'; '.join(where)}. Together {seconds:,} s one after the other, {cpu:,} s of CPU time.")
    return "\n".join(lines)
