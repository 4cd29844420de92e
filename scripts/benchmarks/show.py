"""The table, as text, Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, Run


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = {}
    for name in ("jax", "jaxlib", "flax", "optax", "numpy", "torch"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def _ratio(row: Row) -> str:
    low, middle, high = row.ratio
    digits = 3 if not row.least and middle < 2 else 2 if middle < 10 else 1
    spread = f" [{low:.{digits}f}, {high:.{digits}f}]" if low != high else ""
    return f"{middle:.{digits}f}{spread}"


def _target(row: Row) -> str:
    return f"{'≥' if row.least else '≤'} {row.target:g}{'' if row.met else ' missed'}"


def text(row: Row) -> str:
    """Return a row's lines for people who wait for the next."""
    threads = f", {row.threads} thread{'s' if row.threads > 1 else ''}" if row.threads else ""
    sides = f"ours {row.ours}" + (f", theirs {row.theirs}" if row.theirs else "")
    note = f"\n    {row.note}" if row.note else ""
    return f"{row.title}{threads}\n    {_ratio(row)}   ({_target(row)})   {sides}{note}"


def markdown(rows: Sequence[Row], run: Run) -> str:
    """Return the README's table."""
    about = machine()
    v = about["versions"]
    lines = ["| what | threads | ratio | aimed at | ours | theirs |", "|:--|--:|--:|--:|--:|--:|"]
    lines += [f"| {r.title} | {r.threads or ''} | {_ratio(r)} | {_target(r)} | {r.ours} | {r.theirs} |" for r in rows]
    lines += [
        "",
        f"Medians over {run.rounds} interleaved rounds, with quartiles; each side in a process of its own that",
    ]
    lines += ["waits while the other runs."]
    for n, (flops, memory) in run.peaks.items():
        threads = f"{n} thread{'s' if n > 1 else ''}"
        lines += [
            f"Best matrix product with {threads}: {flops / 1e9:.0f} GFLOP/s; copy of memory: {memory / 1e9:.0f} GB/s."
        ]
    lines += [row.note for row in rows if row.note]
    if run.peaks:
        lines += ["In brackets: share of that product's rate, by the operations of the definition (2 a multiply-add)."]
    lines += [f"{about['processor']}, {about['cores']} cores; JAX {v['jax']}, PyTorch {v['torch']}, Python"]
    lines += [f"{about['python']}. `scripts/bench` measures them again."]
    return "\n".join(lines) + "\n"


def as_json(rows: Sequence[Row], run: Run, command: Sequence[str]) -> str:
    """Return everything that was measured."""
    found: Mapping[str, Any] = {
        "machine": machine(),
        "command": list(command),
        "rounds": run.rounds,
        "threads": list(run.threads),
        "peaks": {str(n): {"flops": f, "bytes": b} for n, (f, b) in run.peaks.items()},
        "rows": [dataclasses.asdict(r) | {"met": r.met} for r in rows],
    }
    return json.dumps(found, indent=1) + "\n"
