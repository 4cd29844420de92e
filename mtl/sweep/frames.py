"""Results as pandas data frames."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mtl.sweep.chosen import chosen
from mtl.sweep.store import Workdir
from mtl.tasks import suggest

if TYPE_CHECKING:
    import pandas

_WHAT = ("trials", "curves", "predictions")


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
    rows: list[dict[str, Any]] = []
    for name, entry in study["sweeps"].items():
        if sweep and name != sweep:
            continue
        picked = chosen(workdir, entry)
        for trial in entry["trials"]:
            head = {"sweep": name, "hash": trial["hash"], **trial["changes"]}
            rows += list(_rows(workdir, head, what, trial["hash"] in picked))
    return pandas.DataFrame(rows)


def _rows(workdir: Workdir, head: dict[str, Any], what: str, picked: bool) -> Iterator[dict[str, Any]]:
    result = workdir.result(head["hash"])
    if result is None:
        if what == "trials":
            status, error = _status(workdir, head["hash"])
            yield head | {"status": status, "error": error}
        return
    if what == "trials":
        target = result["config"]["data"].get("target")  # Of several, each column says which it is of.
        test = {
            f"test_{k}" if task == target else f"test_{k}_of_{task}": _number(v if picked else None)
            for task, values in result.get("test", {}).items()
            for k, v in values.items()
        }
        cost = {k: _number(v) for k, v in result["cost"].items()}
        shared = {k: result[k] for k in ("status", "placement", "finished")}
        yield head | shared | {"val_score": _number(result["val_score"]), "chosen": picked} | test | cost
    elif what == "curves":
        for number, phase in enumerate(result["phases"]):
            for i, step in enumerate(phase["evaluated_at"]):
                for task, curve in phase["val_loss"].items():
                    yield head | {
                        "phase": number,
                        "step": step,
                        "task": task,
                        "train_loss": _number(phase["train_loss"].get(task, [None] * (i + 1))[i]),
                        "val_loss": _number(curve[i]),
                        "val_score": _number(phase["val_score"][task][i]),
                    }
    for task in result.get("test", ()) if what == "predictions" and picked else ():
        arrays = workdir.predictions(head["hash"], task)
        outputs = arrays["outputs"]
        names = ["output"] if outputs.shape[-1] == 1 else [f"output_{i}" for i in range(outputs.shape[-1])]
        for i, row in enumerate(arrays["rows"]):
            group = {"group": int(arrays["groups"][i])} if "groups" in arrays else {}
            if outputs.ndim > 2:  # Maps do not fit into a cell: see ``Workdir.predictions``.
                told = {"score": float(arrays["scores"][i])}
            else:
                told = {"label": float(arrays["labels"][i]), **dict(zip(names, map(float, outputs[i]), strict=True))}
            yield head | {"task": task, "row": int(row)} | group | told


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
