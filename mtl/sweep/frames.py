"""Results as pandas data frames."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mtl.host.spawn import collect_later
from mtl.sweep.chosen import chosen
from mtl.sweep.store import Workdir
from mtl.tasks import suggest

if TYPE_CHECKING:
    import pandas

_WHAT = ("trials", "curves", "predictions")


@collect_later()
def results(
    path: str | Path, what: Literal["trials", "curves", "predictions"] = "trials", sweep: str = ""
) -> pandas.DataFrame:
    """Return the results in a work directory as a pandas DataFrame.

    Args:
      path: the work directory.
      what: ``trials``: a row a trial (its changes, status, validation score, whether it was ``chosen``, cost, and of
        those that were ``test_METRIC`` of the target and ``test_METRIC_of_TASK`` of other tasks; trials without a
        result have status ``missing``, ``stale`` or ``failed``); ``curves``: a row an evaluation of a phase's task;
        ``predictions``: a row a test example of a task of a chosen trial, with its label, the head's outputs (logits),
        and its group if the table has groups. A trial is chosen by validation among those that differ in tuned fields
        only, once all of them have ended.
      sweep: a sweep's name; all of them by default. A trial that is in two sweeps has a row in each.

    Raises:
      StoreError: if there is no study in that directory.
      ValueError: for another ``what``, or a sweep that is not there.
    """
    import pandas

    if what not in _WHAT:
        raise ValueError(f'what = "{what}": {suggest(what, _WHAT)}')
    workdir = Workdir(path)
    study = workdir.study()
    if sweep and sweep not in study["sweeps"]:
        raise ValueError(f'sweep = "{sweep}": {suggest(sweep, study["sweeps"])}')
    trials = [
        ({"sweep": name, "hash": trial["hash"], **trial["changes"]}, trial["hash"] in picked)
        for name, entry in study["sweeps"].items()
        if name == (sweep or name)
        for picked in [chosen(workdir, entry)]
        for trial in entry["trials"]
    ]
    if what == "trials":
        return pandas.DataFrame([_row(workdir, head, picked) for head, picked in trials])
    parts = [part for head, picked in trials for part in _parts(workdir, head, what, picked)]
    if not parts:
        return pandas.DataFrame()
    # A dictionary a row would take a minute for a million rows.
    counts = [len(next(iter(columns.values()))) for _, columns in parts]
    frame = pandas.DataFrame([head for head, _ in parts]).iloc[np.repeat(np.arange(len(parts)), counts)]
    names = dict.fromkeys(name for _, columns in parts for name in columns)
    every = {
        name: np.concatenate(
            [c[name] if name in c else np.full(n, np.nan) for (_, c), n in zip(parts, counts, strict=True)]
        )
        for name in names
    }
    return pandas.concat([frame.reset_index(drop=True), pandas.DataFrame(every)], axis=1)


def _row(workdir: Workdir, head: dict[str, Any], picked: bool) -> dict[str, Any]:
    """Return what there is to say of a trial."""
    result = workdir.result(head["hash"])
    if result is None:
        status, error = _status(workdir, head["hash"])
        return head | {"status": status, "error": error, "chosen": False}
    target = result["config"]["data"].get("target")  # Of several, each column says which it is of.
    test = {
        f"test_{k}" if task == target else f"test_{k}_of_{task}": _number(v if picked else None)
        for task, values in result.get("test", {}).items()
        for k, v in values.items()
    }
    cost = {k: _number(v) for k, v in result["cost"].items()}
    shared = {k: result[k] for k in ("status", "placement", "finished")}
    return head | shared | {"val_score": _number(result["val_score"]), "chosen": picked} | test | cost


def _parts(
    workdir: Workdir, head: dict[str, Any], what: str, picked: bool
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Yield (what some rows have in common, their columns) of a trial: of each phase, or of each task."""
    result = workdir.result(head["hash"])
    if result is None:
        return
    for number, phase in enumerate(result["phases"] if what == "curves" else ()):
        steps, tasks = phase["evaluated_at"], list(phase["val_loss"])
        nothing = dict.fromkeys(tasks, [None] * len(steps))
        curves = {"train_loss": nothing | phase["train_loss"], **{k: phase[k] for k in ("val_loss", "val_score")}}
        each = {k: np.array([own[task] for task in tasks], float).T.ravel() for k, own in curves.items()}
        tasks_of_rows = np.array(tasks * len(steps), object)
        yield (
            head | {"phase": number},
            {"step": np.repeat(np.array(steps, int), len(tasks)), "task": tasks_of_rows} | each,
        )
    for task in result.get("test", ()) if what == "predictions" and picked else ():
        arrays = workdir.predictions(head["hash"], task)
        outputs = arrays["outputs"]
        columns = {"row": arrays["rows"].astype(int)}
        if "groups" in arrays:
            columns["group"] = arrays["groups"].astype(int)
        if outputs.ndim > 2:  # Maps do not fit into a cell: see ``Workdir.predictions``.
            columns["score"] = arrays["scores"].astype(float)
        else:
            columns["label"] = arrays["labels"].astype(float)
            names = ["output"] if outputs.shape[1] == 1 else [f"output_{i}" for i in range(outputs.shape[1])]
            columns |= dict(zip(names, outputs.T.astype(float), strict=True))
        yield head | {"task": task}, columns


def _status(workdir: Workdir, digest: str) -> tuple[str, str | None]:
    """Return (what became of a trial, why it failed)."""
    if (result := workdir.result(digest)) is not None:
        return result["status"], None
    error = workdir.failure(digest)
    return ("failed" if error is not None else "stale" if digest in workdir.stale else "missing"), error


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def counts(workdir: Workdir) -> dict[str, Any]:
    """Return how many trials of each sweep are done, diverged, failed, stale and missing, from files alone.

    What has been edited since the sweep last ran is not seen here. ``damaged`` says what was found damaged.

    Raises:
      StoreError: if there is no study in that directory.
    """
    study = workdir.study()
    found: dict[str, Any] = {"study": study["study"], "sweeps": {}, "runs": len(study.get("runs", {}))}
    for name, entry in study["sweeps"].items():
        workdir.expect(entry)
        became = [_status(workdir, trial["hash"]) for trial in entry["trials"]]
        tally = dict.fromkeys(("done", "diverged", "failed", "stale", "missing"), 0)
        tally |= collections.Counter(status for status, _ in became)
        reasons = collections.Counter(error for _, error in became if error is not None)
        found["sweeps"][name] = {"trials": len(entry["trials"]), **tally, **entry["plan"], "reasons": reasons}
    return found | {"damaged": sorted(workdir.damaged.values())}
