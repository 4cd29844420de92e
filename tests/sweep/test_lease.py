"""One writer a work directory: the second leaves at once and says who holds it; what a dead one held is taken over."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mtl.cli import main
from mtl.sweep import lease as leases
from mtl.sweep.launch import Silent
from mtl.sweep.lease import HeldError, Lease
from mtl.sweep.store import StoreError, Workdir
from tests.sweep.test_failures import MLP, run

ELSEWHERE = "another-host"


@contextlib.contextmanager
def holding(path, **how):
    lease = Lease(path, **how)
    lease.acquire()
    try:
        yield lease
    finally:
        lease.release()


def files(path):
    return sorted(p.name for p in (path / "lease").iterdir())


def elsewhere(path, **changes):
    """Make the lease there one of a process on another host."""
    (name,) = files(path)
    file = path / "lease" / name
    content = json.loads(file.read_bytes())
    content.pop("sha256")
    file.write_bytes(leases.seal(content | {"where": ELSEWHERE, "host": ELSEWHERE} | changes))
    return file


def test_the_second_is_told_who_holds_it_and_the_third_takes_what_was_given_back(tmp_path):
    with holding(tmp_path):
        begun = time.monotonic()
        with pytest.raises(HeldError, match=rf"process {os.getpid()} on host '{os.uname().nodename}'"):
            Lease(tmp_path).acquire()
        with pytest.raises(HeldError):
            Lease(tmp_path).look()
        assert time.monotonic() - begun < 2
    Lease(tmp_path).look()
    with holding(tmp_path):
        assert files(tmp_path) == ["000002.json"]


def test_a_lease_is_kept_from_any_directory(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.02)
    with holding(leases.Path("work")) as lease:
        monkeypatch.chdir("/")
        time.sleep(0.3)
        assert not lease.lost
        lease.check()
    monkeypatch.chdir(tmp_path)
    Lease(leases.Path("work")).look()


def test_what_a_holder_that_was_killed_had_half_written_is_removed_and_a_probe_of_another_is_not(tmp_path):
    with holding(tmp_path):
        pass
    half, probe = ".000001.json.17.3.tmp", ".probe.17.abc.tmp"
    for name in (half, probe):
        (tmp_path / "lease" / name).write_bytes(b"{")
    with holding(tmp_path):
        assert files(tmp_path) == [probe, "000002.json"]


def dead_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_lease_of_a_process_that_is_gone_is_taken_at_once(tmp_path):
    lease = Lease(tmp_path)
    lease.acquire()
    lease._over.set()
    (name,) = files(tmp_path)
    file = tmp_path / "lease" / name
    content = json.loads(file.read_bytes())
    content.pop("sha256")
    for process in ([dead_process(), "17"], [os.getpid(), "17"]):  # Gone; or its number has passed to another one.
        file.write_bytes(leases.seal(content | {"process": process}))
        begun = time.monotonic()
        with holding(tmp_path):
            assert time.monotonic() - begun < 2
        file = tmp_path / "lease" / files(tmp_path)[0]


def test_the_workers_of_a_run_that_was_killed_are_waited_for(tmp_path, monkeypatch):
    lease = Lease(tmp_path)
    lease.acquire()
    lease._over.set()
    worker = subprocess.Popen(["sleep", "60"])
    lease.add_workers([worker.pid])
    file = tmp_path / "lease" / files(tmp_path)[0]
    content = json.loads(file.read_bytes())
    content.pop("sha256")
    file.write_bytes(leases.seal(content | {"process": [dead_process(), "17"]}))
    told = []
    monkeypatch.setattr(leases, "ORPHAN_SECONDS", 0.3)
    with pytest.raises(HeldError):
        Lease(tmp_path, told.append).acquire()
    assert len(told) == 1 and "waiting for its workers" in told[0]
    worker.kill()
    worker.wait()
    with holding(tmp_path):
        pass


@pytest.mark.parametrize("day", [-86400.0, 0.0, 86400.0])
def test_on_another_host_the_heartbeat_tells_whatever_the_clocks_say(tmp_path, monkeypatch, day):
    """The server's clock jumps by a day; this host's is a day off: neither makes a living holder look dead."""
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # Nothing may ask for it.
    with holding(tmp_path) as lease:
        elsewhere(tmp_path)
        beat = os.utime
        monkeypatch.setattr(os, "utime", lambda path: beat(path, (1.7e9 + day + time.monotonic(),) * 2))
        time.sleep(0.3)
        monkeypatch.setattr(Lease, "_server_time", lambda self: 1.7e9 + time.monotonic())
        begun = time.monotonic()
        with pytest.raises(HeldError, match=ELSEWHERE):
            Lease(tmp_path).acquire()
        assert time.monotonic() - begun < 5
        assert not lease.lost


@pytest.mark.parametrize(("age", "seconds"), [(31.0, 0.2), (-86400.0, 0.4)])
def test_on_another_host_a_silent_holder_is_taken_over_and_learns_it(tmp_path, monkeypatch, age, seconds):
    monkeypatch.setattr(leases, "BEAT_SECONDS", 1.0)
    monkeypatch.setattr(leases, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(leases, "STALE_SECONDS", 0.4)
    told = []
    old = Lease(tmp_path)
    old.acquire(lambda: told.append("lost"))
    file = elsewhere(tmp_path)
    os.utime(file, (time.time() - age,) * 2)
    begun = time.monotonic()
    with holding(tmp_path):
        assert time.monotonic() - begun >= seconds
        time.sleep(1.5)
        assert old.lost and told == ["lost"]
        with pytest.raises(HeldError, match="it took over"):
            old.check()
        old.release()
        assert files(tmp_path) == ["000002.json"]


def test_a_fresh_heartbeat_from_another_host_holds(tmp_path):
    with holding(tmp_path):
        elsewhere(tmp_path)
        with pytest.raises(HeldError, match=ELSEWHERE):
            Lease(tmp_path).acquire()


@pytest.mark.parametrize("content", [b"", b'{"process": [1], "sha256": ""}', b"[" * 5000])
def test_a_lease_that_cannot_be_read_holds_while_it_is_fresh_and_not_for_ever(tmp_path, monkeypatch, content):
    monkeypatch.setattr(leases, "WATCH_SECONDS", 0.1)
    (tmp_path / "lease").mkdir()
    file = tmp_path / "lease" / "000041.json"
    file.write_bytes(content)
    with pytest.raises(HeldError, match="unknown process"):
        Lease(tmp_path).acquire()
    os.utime(file, (time.time() - 3600,) * 2)
    with holding(tmp_path):
        assert files(tmp_path) == ["000042.json"]


RACES = """
import json, os, pathlib, sys, time
from mtl.sweep.lease import HeldError, Lease

path, races, broken = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"

def compete(journal):
    code = 3
    try:
        lease = Lease(path)
        if broken:
            lease._is_held = lambda *_: False
        lease.acquire()
        with journal.open("ab", buffering=0) as file:
            file.write(b"(")
            time.sleep(0.1)
            file.write(b")")
        code = 0
    except HeldError:
        code = 2
    finally:
        os._exit(code)  # Without giving it back: the next race finds a dead holder.

overlaps, codes = 0, []
for race in range(races):
    journal = path / f"journal-{race}"
    children = [os.fork() or compete(journal) for _ in range(4)]
    codes.append(sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
    overlaps += b"((" in journal.read_bytes()
print(json.dumps([overlaps, codes]))
"""


# The children touch files only, and end without JAX.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.parametrize("broken", [False, True])
def test_of_several_takers_of_a_stale_lease_one_wins(tmp_path, broken):
    """The control takes whatever it finds: then two of them write at once."""
    races = 5 if broken else 20
    command = [sys.executable, "-c", RACES, tmp_path, str(races), str(broken)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    overlaps, codes = json.loads(done.stdout)
    if broken:
        assert overlaps
    else:
        assert not overlaps
        # Who comes when the first has ended already takes it too: one after the other.
        assert len(codes) == races and all(0 in c and set(c) <= {0, 2} for c in codes)
        assert len(files(tmp_path)) == 1


def test_half_written_files_are_removed_by_who_holds_the_lease(tmp_path):
    names = (".study.json.1.0.tmp", "results/.00000001-ab.safetensors.2.1.tmp", "trials/ab/.model.safetensors.2.1.tmp")
    halves = [tmp_path / name for name in (*names, "prefixes/.a.3.2.tmp")]
    for half in halves:
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(b"half")
    with Workdir(tmp_path).held(print, print):
        assert not any(half.exists() for half in halves)


ENTRIES = [{"regime": "scratch", "seed": seed} for seed in range(2)]


def test_a_second_sweep_is_refused_and_readers_need_no_lease(tmp_path, capsys):
    work = tmp_path / "work"
    assert run(work, MLP, ENTRIES).ran == 2
    with holding(work):
        with pytest.raises(HeldError, match=str(os.getpid())):
            run(work, MLP, [*ENTRIES, {"regime": "scratch", "seed": 2}])
        for command in ("status", "table", "plot", "report"):
            assert main([command, str(work)]) == 0
    capsys.readouterr()
    assert run(work, MLP, ENTRIES).ran == 0


def test_a_run_that_lost_its_lease_writes_nothing_more(tmp_path):
    class Slow(Silent):
        """A display during whose first words the lease passes to another process."""

        def meter(self, *arguments):
            workdir.lease.lost = True
            return super().meter(*arguments)

    from mtl.sweep.launch import launch

    workdir = Workdir(tmp_path / "work")
    with pytest.raises(HeldError, match="it took over"):
        launch(MLP, {"some": ENTRIES}, workdir, jobs=0, config_file=None, display=Slow())
    assert (tmp_path / "work" / "study.json").exists() and not list((tmp_path / "work").glob("results/*"))


CONFIG = """
from mtl.config import default

def get_config():
    c = default()
    c.name = "long"
    c.regime = "scratch"
    c.model.options = {"hidden": (64, 64)}
    c.source.total_steps = 10
    c.target.total_steps = 400000
    return c
"""


@pytest.mark.slow
def test_through_the_command_line_the_second_exits_within_five_seconds(tmp_path):
    (tmp_path / "c.py").write_text(CONFIG)
    command = [sys.executable, "-m", "mtl.cli", "run", f"--config={tmp_path / 'c.py'}", f"--workdir={tmp_path / 'w'}"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not (tmp_path / "w" / "study.json").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    begun = time.monotonic()
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.monotonic() - begun
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.returncode == 2
    assert f"process {first.pid} on host '{os.uname().nodename}'" in second.stderr and second.stderr.count("\n") == 1
    assert took < 5 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # On an idle machine within five.
    with pytest.raises(StoreError):
        Workdir(tmp_path / "none").study()
    with holding(tmp_path / "w"):
        pass
