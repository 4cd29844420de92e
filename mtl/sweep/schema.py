"""What a JSON file of a work directory must look like, before anything relies on it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, get_args

from mtl.config import augmentation
from mtl.config.trial import targets_of
from mtl.host.files import DamagedError
from mtl.hypothesis import Falsifier, hypothesis_of
from mtl.regimes import SAMPLINGS
from mtl.tasks import Task

_REAL = (int, float)
_NUMBER = (int, float, type(None))  # Null stands for what is not finite.
_CURVE = [_NUMBER]
_PART: Any = {"sha256": str, "of": str}
_FINGERPRINT: Any = {"data": _PART, "code": _PART, "config": _PART, "init?": _PART}


@dataclasses.dataclass(frozen=True)
class Either:
    """A value that one of two schemas describes; it is told what the last one would be."""

    one: Any
    other: Any


#: A schema is a type or a tuple of types; a frozenset, one of these words; ``[schema]``, a list; ``{"key": schema}``,
#: an object that has these keys (a key that ends in ``?`` may be missing); ``{str: schema}``, an object with any keys.
STUDY: Any = {
    "study": str,
    "created": str,
    "sweeps": {
        str: {
            # The fields of a config that tables and pages are made from.
            "base": {
                **dict.fromkeys(("regime", "data.target", "loss.denominator", "report.baseline"), str),
                **dict.fromkeys(("data.target_size", "seed", "batch_size"), int),
                **dict.fromkeys(("lr", "temperature", "report.margin"), _REAL),
                "joint_sampling": frozenset(SAMPLINGS),
                **dict.fromkeys(("round_steps?", "report.looks?"), int),
                "data.source": [str],
                "data.targets?": [str],
                "report.question": str,
                "report.notes?": [str],
                **dict.fromkeys(("report.contrast?", "report.rows?", "report.columns?"), str),
                "report.falsifier?": frozenset(get_args(Falsifier)),
                "regimes?": dict,
            },
            "plan": {"programs": int, "phases": int, "steps": int, "steps_unshared": int},
            "fingerprints": {str: _FINGERPRINT},
            "trials": [
                {
                    "hash": str,
                    "fingerprint": str,
                    "changes": {
                        "regime?": str,
                        "data.target?": str,
                        "data.target_size?": int,
                        "seed?": int,
                        "lr?": _REAL,
                        "augment?": list,
                    },
                }
            ],
            "tuning?": Either(type(None), {"source_lr": _REAL}),
            "warnings?": [str],
            "data?": {
                **dict.fromkeys(("name", "about", "inputs"), str),
                **dict.fromkeys(("examples", "complete", "groups"), int),
                "tasks": [{"name": str, "kind": str, "labels": int, "missing": _REAL, "what": str}],
                "duplicates": {"rows": int, "sets": int, "conflicts": {str: int}},
            },
            "late?": bool,
        }
    },
    "runs?": {str: {"base": dict}},
}
_RATES: Any = {str: Either([_REAL], _REAL)}
_DATA: Any = {
    "target?": str,
    "targets?": [str],
    "rows?": str,
    "val_fraction": _REAL,
    "folds?": int,
    "fold_repeats?": int,
    "test_size": int,
    "split?": str,
    "hide?": str,
    "hide_rate?": _REAL,
    "hide_skew?": _REAL,
    "hide_rates?": _RATES,
    "label_noise?": _RATES,
    "label_noise_asymmetry?": _REAL,
    "imbalance?": _RATES,
}
_FILES: Any = {str: {"bytes": int, "sha256": str}}
_PHASE: Any = {
    "steps": int,
    "evaluated_at": [int],
    "train_loss": {str: _CURVE},
    "val_loss": {str: _CURVE},
    "val_score": {str: _CURVE},
    "most_steps": int,
    "best_at": int,
    "width": int,
    "penalties?": {str: _NUMBER},
}
RESULT: Any = {
    "hash": str,
    "config": {
        "data": _DATA,
        "tasks": [{"name": str, "kind": str, "metric": str}],
        "phases": [{"select": str, "augment?": list, "begin?": str}],
        "init?": {"path": str},
        "targets?": [str],
    },
    "status": frozenset(("done", "diverged")),
    "val_score": _NUMBER,
    "phases": [{**_PHASE, "program?": str}],
    "inputs": {**dict.fromkeys(("all", "measured", "scaled"), int), "brought": bool},
    "validated": {str: [int]},
    "cost": {
        **dict.fromkeys(("steps", "examples", "rows", "flops", "seconds", "source_examples"), _NUMBER),
        **dict.fromkeys(("parameters", "bytes"), _NUMBER),
        **dict.fromkeys(("fold_steps?", "fold_examples?", "fold_flops?", "fold_seconds?"), _NUMBER),
    },
    "init_cost?": Either(type(None), {"examples": _REAL}),
    "test?": {str: {str: _NUMBER}},
    "metrics?": {str: {**dict.fromkeys(("higher_is_better", "points", "average"), bool), "range": [_NUMBER]}},
    "kinds?": {str: frozenset(("binary", "ids", "numbers"))},
    "files": _FILES,
    "fingerprint": _FINGERPRINT,
    "versions": {str: str},
    **{k: str for k in ("placement", "backend", "device", "machine", "cpu", "finished")},
}
#: The facts of a shared phase.
PREFIX: Any = {
    "key": str,
    "tasks": [str],
    "lr": _NUMBER,
    **_PHASE,
    "diverged_at": int,
    "source_only": bool,
    **{k: _NUMBER for k in ("examples", "flops", "seconds")},
}
#: The facts of a snapshot.
SNAPSHOT: Any = {"keys": [str], "at": int, "data": int, "seconds": _REAL}


def _of_each(fact: Any) -> Either:
    """Return a fact of the inputs, or of each leaf where they are several."""
    return Either({str: fact}, fact)


#: The facts of a trial's model.
MODEL: Any = {
    "config": {
        "data": {"target?": str, "targets?": [str], "options?": dict},
        "targets?": [str],
        "tasks": [{"name": str, "kind": str}],
    },
    "inputs": {
        "shape": _of_each([int]),
        "pixels": _of_each(bool),
        "unit_range": _of_each(bool),
        "columns": _of_each([str]),
        "gaps": _of_each([int]),
        "vocabulary?": _of_each(int),
        "reading": dict,
        "classes": {str: [str]},
    },
}
FAILURE: Any = {"error": str}
_PROCESS: Any = [(int, str)]  # Its number, and when it began.
LEASE: Any = {"host": str, "where": str, "released": bool, "process": _PROCESS, "workers": [_PROCESS]}
WIDTHS: Any = {"widths": {str: int}}


def check(value: Any, schema: Any, where: str = "") -> None:
    """Check that a JSON value is as a schema says.

    Raises:
      DamagedError: if not, saying where; the file is not named.

    >>> check({"error": 1}, FAILURE)
    Traceback (most recent call last):
    mtl.host.files.DamagedError: holds int at error: must be str
    """
    if isinstance(schema, Either):
        try:
            check(value, schema.one, where)
        except DamagedError:
            check(value, schema.other, where)
    elif isinstance(schema, frozenset):
        _must(value, str, where)
        if value not in schema:
            raise DamagedError(f"holds {value[:40]!r} at {where.lstrip('.')}: must be of {', '.join(sorted(schema))}")
    elif isinstance(schema, list):
        _must(value, list, where)
        if not _are(value, schema[0]):
            for i, item in enumerate(value):
                check(item, schema[0], f"{where}[{i}]")
    elif isinstance(schema, dict) and str in schema:
        _must(value, dict, where)
        if not _are(value.values(), schema[str]):
            for key, item in value.items():
                check(item, schema[str], f"{where}.{key}")
    elif isinstance(schema, dict):
        _must(value, dict, where)
        for key, inner in schema.items():
            name = key.removesuffix("?")
            if name in value:
                if type(value[name]) is not inner:
                    check(value[name], inner, f"{where}.{name}")
            elif name == key:
                raise DamagedError(f"has no {f'{where}.{name}'.lstrip('.')}")
    else:
        _must(value, schema, where)


def _are(values: Iterable[Any], schema: Any) -> bool:
    """Return whether all values are of a type; curves have many, and one look each is all they need."""
    kinds = schema if isinstance(schema, tuple) else (schema,) if isinstance(schema, type) else ()
    return set(map(type, values)) <= set(kinds)


def check_study(study: dict[str, Any]) -> None:
    """Check what the sweeps of a study, which is as ``STUDY`` says, hold.

    Raises:
      DamagedError: if it cannot be; the file is not named.
    """
    for entry in study["sweeps"].values():
        if not 0 <= (margin := entry["base"]["report.margin"]) < math.inf:
            raise DamagedError(f"holds a report.margin of {margin}: must be a finite number, 0 or more")
        if (looks := entry["base"].get("report.looks", 1)) < 1:
            raise DamagedError(f"holds a report.looks of {looks}: must be at least 1")
        try:
            hypothesis_of(entry["base"])
        except (KeyError, ValueError) as error:
            raise DamagedError(f"holds no hypothesis that can be read: {str(error)[:200]}") from None
    try:
        for entry in study["sweeps"].values():
            for trial in entry["trials"]:
                if trial["fingerprint"] not in entry["fingerprints"]:
                    raise DamagedError(f"names a fingerprint that it does not hold: {trial['fingerprint'][:40]!r}")
                augmentation.parse(trial["changes"].get("augment", ()))
    except (TypeError, ValueError) as error:
        raise DamagedError(f"holds a change of images that cannot be: {str(error).splitlines()[0]}") from None


def check_result(result: dict[str, Any]) -> None:
    """Check that the parts of a result, which is as ``RESULT`` says, fit together.

    Raises:
      DamagedError: if they do not; the file is not named.
    """
    config = result["config"]
    names = [task["name"] for task in config["tasks"]]
    if not (config["phases"] and result["phases"]):
        raise DamagedError("has no phase")
    if ("target" in config["data"]) == ("targets" in config["data"] and "targets" in config):
        raise DamagedError("has no target, or one and several")
    for target in targets_of(config):
        if target not in names:
            raise DamagedError(f"has the target {target[:40]!r} and no such task")
    try:
        for task in config["tasks"]:  # Its kind, metric and loss may be what a config registers, which is not at hand.
            if task["kind"] not in result.get("kinds", {}):
                Task(**{k: v for k, v in task.items() if k not in ("metric", "loss")})
        for phase in config["phases"]:
            augmentation.parse(phase.get("augment", ()))
    except (TypeError, ValueError) as error:
        raise DamagedError(f"holds a task or a change of images that cannot be: {str(error).splitlines()[0]}") from None
    if unknown := result.get("test", {}).keys() - set(names):
        raise DamagedError(f"was tested on {min(unknown)[:40]!r} and has no such task")
    own = {task["metric"] for task in config["tasks"] if task["name"] in result.get("test", {})}
    if absent := own - result.get("metrics", {}).keys():
        raise DamagedError(f"does not say what metric {min(absent)[:40]!r} is")
    for i, phase in enumerate(result["phases"]):
        curves = [*phase["train_loss"].values(), *phase["val_loss"].values(), *phase["val_score"].values()]
        if any(len(curve) != len(phase["evaluated_at"]) for curve in curves):
            raise DamagedError(f"holds curves of several lengths at phases[{i}]")


def _must(value: Any, kind: Any, where: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise DamagedError(f"holds {type(value).__name__} at {where.lstrip('.') or 'its top'}: must be {names}")
