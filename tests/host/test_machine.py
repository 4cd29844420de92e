"""How much of a machine a process may take: worked out by hand for the trees that kernels show."""

import os

import pytest

from mtl.host import machine
from mtl.host.spawn import default_jobs

THERE = len(os.sched_getaffinity(0))
V1 = "9:name=systemd:/\n4:memory:/box\n1:cpu,cpuacct:/box\n0::/\n"


def tree(root, groups, files):
    for name, text in ({"proc/self/cgroup": groups} | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("50000 100000", 1), ("1000 100000", 1), ("100000 100000", 1), ("110000 100000", 2), ("max 100000", 64)],
)
@pytest.mark.parametrize(
    ("groups", "folder"),
    [
        ("0::/\n", ""),
        ("0::/a.slice/b.scope\n", "a.slice/b.scope/"),
        ("0::/a.slice/b.scope\n", "a.slice/"),
        ("0::/docker/not-seen-in-here\n", ""),
        ("0::/../../outside\n", ""),
    ],
)
def test_a_quota_of_version_2_counts_wherever_it_is_set(tmp_path, monkeypatch, groups, folder, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert machine.cores(tree(tmp_path, groups, {f"sys/fs/cgroup/{folder}cpu.max": f"{quota}\n"})) == expected


@pytest.mark.parametrize(("quota", "expected"), [("50000", 1), ("150000", 2), ("-1", 64)])
@pytest.mark.parametrize("folder", ["cpu,cpuacct/box", "cpu,cpuacct", "cpu/box", "cpu"])
def test_a_quota_of_version_1_counts(tmp_path, monkeypatch, folder, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    files = {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": "100000"}
    assert machine.cores(tree(tmp_path, V1, {f"sys/fs/cgroup/{folder}/{k}": v for k, v in files.items()})) == expected


def test_the_least_of_several_groups_counts_and_never_more_than_a_process_is_bound_to(tmp_path, monkeypatch):
    files = {"sys/fs/cgroup/a/cpu.max": "300000 100000", "sys/fs/cgroup/a/b/cpu.max": "700000 100000"}
    root = tree(tmp_path, "0::/a/b\n", files)
    for bound, expected in ((64, 3), (3, 3), (2, 2), (1, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, n=bound: set(range(n)))
        assert machine.cores(root) == expected


@pytest.mark.parametrize("groups", ["", "0::/\n", V1])
def test_where_no_quota_is_told_all_cores_count(tmp_path, groups):
    assert machine.cores(tree(tmp_path, groups, {})) == THERE
    assert machine.cores(tmp_path / "nothing") == THERE


def test_workers_are_as_many_as_the_cores_that_may_be_used(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(machine, "cores", lambda: 7)
    monkeypatch.setattr("pathlib.Path.exists", lambda path: False)  # No accelerator.
    assert default_jobs() == 7


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("platforms", [None, "", "cpu", "cpu,cuda", "cuda", "cuda,cpu", "tpu"])
def test_jobs_suit_the_device_that_jax_computes_on(monkeypatch, platforms, accelerator):
    """JAX_PLATFORMS decides, its first entry; where it says nothing, whether there is an accelerator."""
    monkeypatch.setattr(machine, "cores", lambda: 7)
    monkeypatch.setattr("pathlib.Path.exists", lambda path: accelerator)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if platforms is not None:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    on_cpu = platforms.startswith("cpu") if platforms else not accelerator
    assert default_jobs() == (7 if on_cpu else 0)


@pytest.mark.parametrize(
    ("groups", "limit", "used"),
    [
        ("0::/a/b\n", "a/memory.max", "a/memory.current"),
        ("0::/\n", "memory.max", "memory.current"),
        (V1, "memory/box/memory.limit_in_bytes", "memory/box/memory.usage_in_bytes"),
        (V1, "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ],
)
def test_free_memory_is_what_a_group_leaves_of_it(tmp_path, groups, limit, used):
    files = {f"sys/fs/cgroup/{limit}": "5000\n", f"sys/fs/cgroup/{used}": "1200\n"}
    files["proc/meminfo"] = "MemTotal: 900 kB\nMemAvailable: 800 kB\n"
    assert machine.free_memory(tree(tmp_path, groups, files)) == 3800
    (tmp_path / "sys" / "fs" / "cgroup" / limit).write_text("max\n")
    assert machine.free_memory(tmp_path) == 800 * 1024
