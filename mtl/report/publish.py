"""Writing a study's figures, tables and page into its work directory."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import mtl
from mtl.config import canonical
from mtl.config.trial import targets_of
from mtl.host.files import MAX_JSON_BYTES, FileError, parse, read, sha256_of_file, write_atomically
from mtl.report import kept
from mtl.report.analyse import analyse
from mtl.report.analysis import Analysis, Scores
from mtl.report.collect import collect
from mtl.report.formats import to_csv, to_json, to_latex, to_markdown
from mtl.report.made_by import made_by, made_sentence
from mtl.report.picked import picked
from mtl.report.show import tables_of
from mtl.report.targets import Targets, analyse_targets
from mtl.sweep.chosen import REPLICATE, TARGET, axes, chosen, level, row_name
from mtl.sweep.fingerprint import code
from mtl.sweep.store import StoreError, Workdir


def analyses_of(workdir: Workdir, sweeps: Sequence[str] = (), partial: bool = False) -> list[Analysis | Targets]:
    """Return the analysis of each sweep (of all that have results, by default).

    Args:
      workdir: the work directory.
      sweeps: the sweeps' names.
      partial: leave out sweeps that have no result yet, even all of them.

    Raises:
      StoreError: if there is no study, no such sweep, or no result.
    """
    study = workdir.study()
    names = list(sweeps) or list(study["sweeps"])
    if not names:
        raise StoreError(f"{workdir.path} holds no sweep yet: run `mtl sweep --workdir={workdir.path}` first")
    found: list[Analysis | Targets] = []
    reasons: list[str] = []
    state = kept.state_of(workdir)
    for name in names:
        try:
            found.append(_analysed(workdir, name, study["sweeps"].get(name), state))
        except StoreError as error:
            if sweeps and not partial:
                raise
            reasons.append(str(error))
    if not found and not partial:
        raise StoreError(reasons[0])
    return found


def _analysed(workdir: Workdir, name: str, entry: Mapping[str, Any] | None, state: str) -> Analysis | Targets:
    """Return the analysis of a sweep as it was kept, or made now; what is damaged or stale is to be told each time."""
    found: Analysis | Targets | None = kept.recall(state, name)
    if found is None:
        found = _analyse(workdir, name, entry)
        if not workdir.damaged and not workdir.stale and kept.state_of(workdir) == state:  # Nobody has written since.
            kept.remember(state, name, found)
    return found


def _analyse(workdir: Workdir, name: str, entry: Mapping[str, Any] | None) -> Analysis | Targets:
    """Return the analysis of a sweep, of one target or of several."""
    tasks = entry["base"].get("data.targets") if entry else None
    if entry is None or not tasks or len(tasks) == 1:
        return analyse(collect(workdir, name, *(tasks or ())))
    of: dict[str, set[str]] = {}
    row, *_ = axes(entry["base"])
    for trial in entry["trials"]:
        name_of = row_name(row, level(entry["base"], trial["changes"], row))
        of.setdefault(name_of, set()).add(trial["changes"].get(TARGET, ""))
    return analyse_targets(
        [collect(workdir, name, task) for task in tasks], {regime: len(targets) for regime, targets in of.items()}
    )


def publish(workdir: Workdir, analyses: Sequence[Analysis | Targets], command: str) -> list[Path]:
    """Write the tables and figures of some sweeps and the study's page, and return the figures and the page.

    Where no sweep has a result there is no page, and nothing is returned. What was written before from the same
    results by the same code is left as it is.

    Args:
      workdir: the work directory.
      analyses: of the sweeps.
      command: what the page says made it.
    """
    stamps = _stamps(workdir)
    study, paths = workdir.study(), []
    digests = {name: _digest(workdir, entry) for name, entry in study["sweeps"].items()}
    for analysis in analyses:
        name = analysis.scores.sweep
        kinds = ("gain", "curves") if isinstance(analysis, Targets) else ("metric", "gain", "curves")
        drawn = [workdir.path / "figures" / f"{name}-{kind}.png" for kind in kinds]
        if stamps.get(name) != digests[name] or not all(path.is_file() for path in drawn[:-1]):
            publish_tables(workdir, analysis)
            drawn = publish_figures(workdir, analysis)
            stamps[name] = digests[name]
        paths += [path for path in drawn if path.is_file()]
    page, whole = workdir.inside("report.html"), canonical(digests)
    if stamps.get("") != whole or not page.is_file():
        known = [a.scores.sweep for a in analyses]
        others = [name for name in study["sweeps"] if name not in known]
        every = [*analyses, *(analyses_of(workdir, others, partial=True) if others else [])]
        if not every:
            return []
        publish_page(workdir, every, command)
        stamps[""] = whole
        if [a.scores.sweep for a in every] == list(study["sweeps"]) and not workdir.damaged and not workdir.stale:
            stamps[page.name] = _page_stamp(workdir, page)
    _stamp(workdir, stamps)
    return [*paths, page]


def _stamps(workdir: Workdir) -> dict[str, str]:
    """Return digests of what was published from: a sweep's by its name, all sweeps' by no name, the page's by its."""
    file = workdir.inside("published.json")
    if file.is_file():
        with contextlib.suppress(FileError):  # Damaged: everything is written again.
            return {k: v for k, v in parse(read(file, MAX_JSON_BYTES)).items() if isinstance(v, str)}
    return {}


def _stamp(workdir: Workdir, stamps: Mapping[str, str]) -> None:
    write_atomically(workdir.inside("published.json"), canonical(stamps).encode(), durable=False)


def report(workdir: Workdir, command: str) -> Path:
    """Return the study's page, which is written unless it is the very one that was, from the same results.

    Args:
      workdir: the work directory.
      command: what the page says made it.

    Raises:
      StoreError: if there is no study, or no result.
    """
    page, stamps = workdir.inside("report.html"), _stamps(workdir)
    if not (known := stamps.get(page.name)) or known != _page_stamp(workdir, page):
        publish_page(workdir, analyses_of(workdir), command)
        stamp = "" if workdir.damaged or workdir.stale else _page_stamp(workdir, page)  # That is told each time.
        _stamp(workdir, {**stamps, page.name: stamp})
    return page


def _page_stamp(workdir: Workdir, page: Path) -> str:
    """Return a digest of what the page holds and is made from; empty if that cannot be read."""
    try:
        parts = [kept.state_of(workdir), metadata.version("matplotlib"), sha256_of_file(page)]
    except OSError:
        parts = [""]
    return hashlib.sha256(canonical(parts).encode()).hexdigest() if all(parts) else ""


@functools.lru_cache(maxsize=1)
def _report_version() -> str:
    """Return a digest of the code that draws and writes."""
    digest = hashlib.sha256(metadata.version("matplotlib").encode())
    folder = Path(__file__).parent
    for path in sorted([*folder.iterdir(), *(folder / "templates").iterdir()]):
        if path.is_file() and not path.name.startswith("."):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _digest(workdir: Workdir, entry: Mapping[str, Any]) -> str:
    """Return a digest of all that a sweep's tables and figures are made from."""
    done = []
    workdir.expect(entry)
    for t in entry["trials"]:
        result = workdir.result(t["hash"])
        state = workdir.failure(t["hash"]) if result is None else result["finished"]
        done.append([t["hash"], state])
    return hashlib.sha256(canonical([_report_version(), code(), entry, done]).encode()).hexdigest()


def publish_tables(workdir: Workdir, analysis: Analysis | Targets) -> list[Path]:
    """Write a sweep's tables as Markdown, LaTeX, CSV and JSON and return their paths."""
    paths = []
    for _, table in tables_of([analysis]):
        for ending, write in (("md", to_markdown), ("tex", to_latex), ("csv", to_csv), ("json", to_json)):
            path = workdir.inside("tables", f"{analysis.scores.sweep}-{table.name}.{ending}")
            write_atomically(path, write(table).encode(), durable=False)
            paths.append(path)
    return paths


def publish_figures(workdir: Workdir, analysis: Analysis | Targets) -> list[Path]:
    """Draw a sweep's figures as PNG and SVG and return the paths of the PNGs."""
    from mtl.report import curves, figures, forest

    folder = workdir.inside("figures")
    if isinstance(analysis, Targets):
        drawn = {"gain": forest.forest_figure(analysis)} if len(analysis.scores.regimes) > 1 else {}
    else:
        drawn = {"metric": figures.metric_figure(analysis), "gain": figures.gain_figure(analysis)}
    trials = picked(workdir, workdir.study()["sweeps"][analysis.scores.sweep])
    if (learnt := curves.learning_curves(analysis, trials)) is not None:
        drawn["curves"] = learnt
    found = []
    for kind, figure in drawn.items():
        for ending in ("png", "svg"):
            workdir.inside("figures", f"{analysis.scores.sweep}-{kind}.{ending}")
        try:
            found += figures.save(figure, folder / f"{analysis.scores.sweep}-{kind}")
        except OSError as error:
            raise FileError(f"figures in {folder} cannot be written: {error.strerror or error}") from None
    return [path for path in found if path.suffix == ".png"]


def publish_page(workdir: Workdir, analyses: Sequence[Analysis | Targets], command: str) -> Path:
    """Write the study's page, one self-contained HTML file, and return its path."""
    from mtl.report.beside import supplement_of
    from mtl.report.page import page

    study = workdir.study()
    trials: list[dict[str, Any]] = []
    configs: dict[str, dict[str, Any]] = {}
    results: dict[str, dict[str, Any]] = {}
    beside = {}
    for analysis in analyses:
        entry = study["sweeps"][analysis.scores.sweep]
        configs[f"{analysis.scores.sweep}: base"] = entry["base"]
        shown = chosen(workdir, entry)
        beside[analysis.scores.sweep] = supplement_of(workdir, entry, analysis)
        for t in entry["trials"]:
            result = workdir.result(t["hash"])
            trials.append(_row(workdir, analysis.scores, entry["base"], t, result, t["hash"] in shown))
            configs.setdefault(t["hash"], t["changes"])
            if result is not None:
                results[t["hash"]] = result
    times = [result["finished"] for result in results.values()]
    text = page(
        analyses,
        beside=beside,
        title=f"mtl · {study['study']}",
        made=made_sentence(results.values()),
        provenance={
            "study made": study["created"],
            "first and last result": [min(times), max(times)] if times else [],
            "trained with": made_by(results.values()),
            "this page": drawn_by(),
        },
        trials=trials,
        configs=configs,
        command=command,
    )  # fmt: skip
    path = workdir.inside("report.html")
    write_atomically(path, text.encode(), durable=False)
    return path


def _row(
    workdir: Workdir,
    scores: Scores,
    base: dict[str, Any],
    t: dict[str, Any],
    result: dict[str, Any] | None,
    shown: bool,
) -> dict[str, Any]:
    """Return a trial's row in the page; its test metric only if it was chosen."""
    changes = t["changes"]
    row = {
        "sweep": scores.sweep,
        "regime": changes.get("regime", base["regime"]),
        "n": changes.get("data.target_size", base["data.target_size"]),
        "seed": changes.get(REPLICATE, base[REPLICATE]),
        **{axis: level(base, changes, axis) for axis in axes(base)[:2] if axis not in ("regime", "data.target_size")},
        "learning_rate": changes.get("lr", base["lr"]),
        "status": "missing" if workdir.failure(t["hash"]) is None else "failed",
        "hash": t["hash"],
    }
    if result is not None:
        row |= {
            "status": result["status"],
            "validation": result["val_score"],
            "test": _tested(result) if shown else None,
            "examples": result["cost"]["examples"],
            "seconds": result["cost"]["seconds"],
        }
    return row


def _tested(result: Mapping[str, Any]) -> float | None:
    """Return the metric that a trial's network has on its targets, on average; nothing if their metrics differ."""
    metric = {task["name"]: task["metric"] for task in result["config"]["tasks"]}
    tested = [task for task in targets_of(result["config"]) if task in result.get("test", {})]
    if len({metric[task] for task in tested}) != 1:
        return None
    values = [result["test"][task].get(metric[task]) for task in tested]
    return None if None in values else sum(values) / len(values)


def drawn_by() -> dict[str, Any]:
    """Return what made the page itself; by what the trials were trained, their results say."""
    return {
        "mtl": mtl.__version__,
        "git commit": git_commit() or "not in a git checkout",
        "Python": platform.python_version(),
        "matplotlib": metadata.version("matplotlib"),
        "command": shlex.join(["mtl", *sys.argv[1:]]),
    }


def git_commit() -> str:
    """Return the checkout's commit, with ``+changes`` if files differ from it; empty outside of one."""
    root = Path(mtl.__file__).parent.parent
    if not (root / ".git").exists():
        return ""

    # Neither another repository that the environment names, nor programs that this one's settings do.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    words = ["git", "-C", str(root), "-c", "core.fsmonitor=false"]

    def git(*args: str) -> str:
        try:
            done = subprocess.run([*words, *args], env=environment, capture_output=True, text=True, check=False)
        except OSError:  # There is no git here.
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    return f"{commit}+changes" if commit and git("status", "--porcelain", "--untracked-files=no") else commit
