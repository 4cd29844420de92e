"""What this process may take of its machine: cores and memory, as its control groups allow."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def cores(root: Path = _ROOT) -> int:
    """Return how many cores this process may use: those it is bound to, and no more than its quota of time pays for.

    Half a core is one, a core and a half are two.

    Args:
      root: where ``proc`` and ``sys`` are.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min([there, *(_quota(folder) for folder in _groups(root, "cpu"))]))


def free_memory(root: Path = _ROOT) -> int:
    """Return the bytes of memory that are free for this process.

    Args:
      root: where ``proc`` and ``sys`` are.
    """
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    info = root / "proc" / "meminfo"
    if info.is_file():
        found = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        free = int(found["MemAvailable"].split()[0]) * 1024
    for folder in _groups(root, "memory"):
        for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            limit, taken = _numbers(folder / most), _numbers(folder / used)
            if limit and taken:
                free = min(free, int(limit[0] - taken[0]))
    return max(0, free)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Return the folders of the control groups that this process is in, each with those above it.

    A container's own group is often mounted at the top while ``/proc`` tells its path on the host: a folder that is not
    there limits nothing, those above it may.
    """
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return  # No Linux.
    top = root / "sys" / "fs" / "cgroup"
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        mounted = top / names if names else top  # A name in version 1, none in version 2.
        for mount in dict.fromkeys((mounted, top / controller if names else top)):
            inner = mount / path.lstrip("/")
            if ".." not in Path(path).parts:
                yield from (f for f in (inner, *inner.parents) if f.is_relative_to(mount))
            else:
                yield mount


def _quota(folder: Path) -> float:
    """Return the cores' worth of time that a group's quota pays for; infinity if it has none."""
    found = _numbers(folder / "cpu.max")
    if not found:
        found = _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us")
    quota, period = found if len(found) == 2 else (-1.0, 1.0)
    return quota / period if quota > 0 and period > 0 else math.inf


def _numbers(file: Path) -> list[float]:
    """Return the numbers that a file holds; none if it is not there or one of them is ``max``."""
    try:
        words = file.read_text().split()
        return [float(word) for word in words]
    except (OSError, ValueError):
        return []
