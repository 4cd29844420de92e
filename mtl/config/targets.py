"""Which tasks a study asks about, which of them a trial's network is for, and on how many rows they have labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl.config.fields import Flat
from mtl.config.problems import ConfigError, refused
from mtl.config.trial import asked_of, canonical
from mtl.data import Asked, cut, load
from mtl.data.corrupt.split import FIELDS as CORRUPTING
from mtl.data.readers.cells import spelled
from mtl.regimes import Regime
from mtl.tasks import Task

#: Stands alone in ``data.targets`` for every task of the data set that is no source.
ALL = "all"


def settled(flat: Flat, available: Sequence[Task]) -> Flat:
    """Return the fields with nothing left open on tasks: their names, whether rows are shared, how they mix.

    ``data.targets`` stays empty for a study of one target on rows of its own: it asks what a study with ``data.target``
    asks, and its trials are the same.

    Args:
      flat: the config's fields.
      available: the data set's tasks.

    >>> from mtl.config import default, flatten, override
    >>> flat = override(flatten(default()), {"data.targets": ("all",), "data.source": ("a",)})
    >>> found = settled(flat, [Task("a", "binary"), Task("b", "binary"), Task("c", "binary")])
    >>> found["data.targets"], found["data.rows"], found["joint_sampling"]
    (('b', 'c'), 'shared', 'rows')
    """
    flat = _spelled(flat, available)
    targets, source = flat["data.targets"], flat["data.source"]
    if targets == (ALL,):
        targets = tuple(task.name for task in available if task.name not in source)
    rows, mixing = flat["data.rows"], flat["joint_sampling"]
    if rows == "auto":
        rows = "shared" if len(targets) > 1 else "disjoint"
    if mixing == "auto":
        mixing = "rows" if rows == "shared" else "per_task"
    found = {**flat, "data.targets": targets, "data.rows": rows, "joint_sampling": mixing}
    if len(targets) == 1:
        found["data.target"] = targets[0]
    if len(targets) < 2:
        found["data.targets"] = (found["data.target"],) if rows == "shared" else ()
    return found


def _spelled(flat: Flat, available: Sequence[Task]) -> Flat:
    """Return the fields with tasks' names spelled as readers of data spell them (see ``mtl.data.readers.cells``)."""
    known = {t.name for t in available}

    def name(given: Any) -> Any:
        return given if given in known else spelled(given) or given

    everything = flat["data.targets"] == (ALL,) and ALL not in known
    sections = ("task_options", "loss.weights", "data.hide_rates", "data.label_noise", "data.imbalance")
    return {
        **flat,
        "data.source": tuple(map(name, flat["data.source"])),
        "data.target": name(flat["data.target"]),
        "data.targets": flat["data.targets"] if everything else tuple(map(name, flat["data.targets"])),
        **{section: {name(k): v for k, v in flat[section].items()} for section in sections},
    }


def asked(flat: Flat) -> tuple[str, ...]:
    """Return the tasks that a study asks about; of ``settled`` fields."""
    return flat["data.targets"] or (flat["data.target"],)


def alone(flat: Flat, regime: Regime) -> str:
    """Return the one target that a trial's network ends on; nothing if it is for all that its phases see.

    Raises:
      ConfigError: for a regime that ends on one, where none is named.
    """
    if not regime.alone:
        return ""
    targets, target = asked(flat), str(flat["data.target"])
    if target not in targets:
        raise ConfigError(
            f'config.data.target = "{target}": regime "{flat["regime"]}" trains a network for one target: must be one '
            f"of data.targets: {', '.join(targets)}"
        )
    return target


def section_of(section: dict[str, Any]) -> dict[str, Any]:
    """Return the data section with its targets: one, or several on whose rows each comes with all its labels.

    Which target a trial is about is not in it: the trials of all targets share their split and the phases before. A
    random split and folds that there are none of are not stated, so that a config without them has the hash it always
    had.
    """
    absent = {"target"} if section["targets"] else {"targets", "rows"}
    absent |= {"split"} if section["split"] == "random" else set()
    absent |= {"folds", "fold_repeats"} if section["folds"] < 2 else set()
    return {k: v for k, v in section.items() if k not in absent}


def rows_of(section: Mapping[str, Any], seed: int, tasks: Sequence[str]) -> int:
    """Return how many rows have a training label of any of some tasks.

    Args:
      section: the resolved config's section ``data``.
      seed: the replicate.
      tasks: their names.
    """
    targets, sources = set(asked_of({"data": section})), set(section["source"])
    pools = [targets | sources] if section.get("rows") == "shared" else [sources, targets]
    seen = [set(tasks) & pool for pool in pools]
    if not tasks:
        return 0
    if any(few not in (set(), pool) for few, pool in zip(seen, pools, strict=True)) or section.keys() & set(CORRUPTING):
        with refused("config.data: "):  # Which rows have these labels the data say, and chance.
            return len(cut(load(section["name"], **section["options"]), canonical(section), seed).rows(tasks))
    size = Asked.of(section)
    return size.source_train * (len(pools) == 2 and bool(seen[0])) + size.target_train * bool(seen[-1])
