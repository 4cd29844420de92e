"""What a JSON file of a work directory must look like, before anything relies on it."""

from __future__ import annotations

from typing import Any

from mtl.files import DamagedError

_NUMBER = (int, float, type(None))  # Null stands for what is not finite.
_CURVE = [_NUMBER]

#: A schema is a type or a tuple of types; ``[schema]``, a list; ``{"key": schema}``, an object that has these keys
#: (a key that ends in ``?`` may be missing); ``{str: schema}``, an object with any keys.
STUDY: Any = {
    "study": str,
    "created": str,
    "sweeps": {
        str: {
            "base": dict,
            "plan": {"programs": int, "phases": int, "steps": int, "steps_unshared": int},
            "trials": [{"hash": str, "changes": dict}],
        }
    },
    "runs?": {str: {"base": dict}},
}
_FILES: Any = {str: {"bytes": int, "sha256": str}}
RESULT: Any = {
    "hash": str,
    "config": {"data": dict, "tasks": [dict], "init?": dict},
    "status": str,
    "val_loss": _NUMBER,
    "phases": [
        {
            "evaluated_at": [int],
            "train_loss": _CURVE,
            "val_loss": {str: _CURVE},
            "width": int,
            "program?": str,
            "penalties?": {str: _NUMBER},
        }
    ],
    "cost": {str: _NUMBER},
    "test?": {str: _NUMBER},
    "files?": _FILES,
    **{k: str for k in ("data_sha256", "code_version", "executor", "backend", "device", "machine", "finished")},
}
#: The facts of a shared phase.
PREFIX: Any = {
    "key": str,
    "tasks": [str],
    "lr": _NUMBER,
    "steps": int,
    "evaluated_at": [int],
    "train_loss": _CURVE,
    "val_loss": {str: _CURVE},
    "diverged_at": int,
    "source_only": bool,
    "width": int,
    "penalties?": {str: _NUMBER},
    **{k: _NUMBER for k in ("examples", "flops", "seconds")},
}
#: The facts of a snapshot.
SNAPSHOT: Any = {"keys": [str], "at": int, "data": int, "seconds": _NUMBER, "code": str}
FAILURE: Any = {"error": str}
WIDTHS: Any = {"widths": {str: int}}


def check(value: Any, schema: Any, where: str = "") -> None:
    """Check that a JSON value is as a schema says.

    Raises:
      DamagedError: if not, saying where; the file is not named.

    >>> check({"error": 1}, FAILURE)
    Traceback (most recent call last):
    mtl.files.DamagedError: holds int at error: must be str
    """
    if isinstance(schema, list):
        _must(value, list, where)
        for i, item in enumerate(value):
            check(item, schema[0], f"{where}[{i}]")
    elif isinstance(schema, dict) and str in schema:
        _must(value, dict, where)
        for key, item in value.items():
            check(item, schema[str], f"{where}.{key}")
    elif isinstance(schema, dict):
        _must(value, dict, where)
        for key, inner in schema.items():
            name = key.removesuffix("?")
            if name in value:
                check(value[name], inner, f"{where}.{name}")
            elif name == key:
                raise DamagedError(f"has no {f'{where}.{name}'.lstrip('.')}")
    else:
        _must(value, schema, where)


def _must(value: Any, kind: Any, where: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise DamagedError(f"holds {type(value).__name__} at {where.lstrip('.') or 'its top'}: must be {names}")
