"""What each regime of a table does, in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mtl import regimes
from mtl.report.phrases import join
from mtl.report.text import row_text


def regime_lines(names: Iterable[str], own: Mapping[str, Any], phases: Mapping[str, Any]) -> dict[str, str]:
    """Return a line on each regime: its summary, or else what its phases say.

    Args:
      names: of the regimes.
      own: those that a config writes itself.
      phases: by name, the resolved phases of one of its trials, for what a config registers.

    >>> regime_lines(["finetune", "mine"], {"mine": {"phases": [{"tasks": "source"}, {"trainable": "head"}]}}, {})
    {'finetune': 'source, then everything on the target', 'mine': 'source: everything; then target: the head'}
    """
    lines = {}
    for name in names:
        base = name.partition("@")[0]
        if base in own or base in regimes.REGIMES:
            known = regimes.get(name, own)
            told = known.summary if regimes.get(base, own).summary else ""
            line = told or phase_words(vars(phase) for phase in known.expand(1))
        else:
            line = phase_words(phases.get(name, ()))
        if line:
            lines[row_text(name)] = line
    return lines


def phase_words(phases: Iterable[Mapping[str, Any]]) -> str:
    """Return what phases do, in the order in which they do it.

    Args:
      phases: their fields; those that are not there have their default.

    >>> phase_words([{"tasks": ("digit",)}, {"tasks": ("even",), "trainable": "last_2", "fresh": ("head",)}])
    'digit: everything; then even: the head and the last 2 blocks (fresh: the head)'
    """
    said = []
    for phase in phases:
        tasks, moves, fresh = phase.get("tasks", "target"), phase.get("trainable", "all"), phase.get("fresh", ())
        about = tasks.replace("+", " and ") if isinstance(tasks, str) else join(list(tasks))
        extra = [f"fresh: {join([_part(part) for part in fresh])}"] if fresh else []
        if adapter := phase.get("adapt"):
            extra.append(f"adapter {adapter if isinstance(adapter, str) else adapter[0]}")
        if (solver := phase.get("solver", "gradient")) != "gradient":
            extra.append(f"by {solver}".replace("_", " "))
        what = _part(moves) if isinstance(moves, str) else join([_part(part) for part in moves])
        said.append(f"{about}: {what}" + (f" ({', '.join(extra)})" if extra else ""))
    return "; then ".join(said)


def _part(name: str) -> str:
    """Return what moves or starts afresh, in words; a pattern as it is."""
    if name.startswith("last_") and name[5:].isdecimal():
        return f"the head and the last {name[5:]} block{'s' * (name != 'last_1')}"
    return {"all": "everything", "head": "the head", "backbone": "the trunk"}.get(name, name)
