"""What a set of trials comes to: distinct phases, the programs they need, and the steps they take.

A phase is addressed by its content: the resolved config of the phases up to it, the data's sha256, the code's
version. Trials that begin alike share the phases they have in common, and each distinct one is trained once.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl import data
from mtl.checkpoint import CheckpointError, load_weights, sha256_of
from mtl.config import ConfigError, Trial, augmentation, canonical
from mtl.data import duplicates, scaling, spoil
from mtl.data.scaling import Scaling
from mtl.models import whole_numbers
from mtl.params import flatten, merge
from mtl.sweep.store import code_version
from mtl.train.trial import Stage, canonical_phases, shapes, stages_of

#: Fields of ``data`` that a phase without the target's labels does not depend on.
_TARGET_ONLY = ("target_size", "val_fraction")


@dataclasses.dataclass(frozen=True)
class Node:
    """One distinct phase.

    Attributes:
      key: its address.
      parent: the address of the phase before it, if any.
      trial: a trial it belongs to (all of them agree on everything that matters to it).
      stage: the phase.
      source_only: whether it sees no label of the target.
    """

    key: str
    parent: str | None
    trial: Trial
    stage: Stage
    source_only: bool


@dataclasses.dataclass
class Plan:
    """The distinct phases of some trials.

    Attributes:
      trials: by hash, in the order given.
      nodes: by key, parents before children.
      chains: for each trial, the keys of its phases.
      users: for each node, the trials that rest on it.
    """

    trials: dict[str, Trial]
    nodes: dict[str, Node]
    chains: dict[str, tuple[str, ...]]
    users: dict[str, list[str]]

    def steps(self) -> int:
        """Return the steps that the distinct phases take."""
        return sum(n.stage.steps for n in self.nodes.values())

    def steps_unshared(self) -> int:
        """Return the steps that the trials would take if each trained all of its phases."""
        return sum(self.nodes[k].stage.steps for chain in self.chains.values() for k in chain)

    def programs(self) -> int:
        """Return the number of distinct training programs to compile."""
        return len({n.stage.program for n in self.nodes.values()})

    def program_key(self, key: str) -> str:
        """Return what identifies a phase's program in a work directory, whatever process looks."""
        node = self.nodes[key]
        c, p = node.trial.config, node.stage.program
        static = [c["model"], c["tasks"], c["optimizer"], c["denominator"], c["accumulate"], p.tasks, p.trainable]
        static += [p.batch, p.sampling, p.temperature, p.trunk_mode, p.select, p.standardize, p.cached, p.ridge]
        static += [p.round_steps, augmentation.stated(p.augment)] if p.round_steps or p.augment else []
        return hashlib.sha256(canonical(static).encode()).hexdigest()[:16]

    def saved(self, key: str) -> bool:
        """Return whether a phase is kept on disk: a source phase, or one that several trials rest on."""
        return self.nodes[key].source_only or len(self.users[key]) > 1


def table_of(trial: Trial) -> data.Table:
    """Return the table of a trial's data set.

    Raises:
      ConfigError: for a data set or an option that does not exist.
    """
    spec = trial.config["data"]
    return load_table(spec["name"], spec["options"])


def load_table(name: str, options: Mapping[str, Any]) -> data.Table:
    """Return a data set's table.

    Raises:
      ConfigError: for a data set or an option that does not exist.
    """
    key = f"{name}{sorted(options.items())}"
    if key not in _tables:
        try:
            _tables[key] = data.load_with(name, options, "config.data.options.")
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{'' if str(error).startswith('config.') else 'config.data: '}{error}") from None
    return _tables[key]


_tables: dict[str, data.Table] = {}


def split_of(trial: Trial) -> data.Split:
    """Return a trial's split.

    Raises:
      ConfigError: for sizes that the data set cannot give.
    """
    table = table_of(trial)
    try:
        return data.cut(table, canonical(trial.config["data"]), trial.seed)
    except ValueError as error:
        raise ConfigError(f"config.data: {error}") from None


def scaled(trial: Trial) -> bool:
    """Return whether a trial's network sees other inputs than the table's."""
    return scaling.changes(table_of(trial), trial.config["data"]["normalize"])


def scaling_of(trial: Trial) -> Scaling:
    """Return what a trial's inputs and labels are scaled with."""
    return scaling.fit(table_of(trial), split_of(trial), trial.config["data"]["normalize"], _own(trial))


def _own(trial: Trial) -> tuple[str, ...]:
    """Return the tasks whose labelled rows a control is scaled by; none for a regime that is scaled as all others."""
    if trial.config.get("scale_with") != "own":
        return ()
    return tuple(sorted({t for p in trial.phases for t in p.tasks}))


def data_warnings(trials: Sequence[Trial]) -> list[str]:
    """Return a sentence for each data set of which some trial tests on copies of what it learns from.

    Args:
      trials: of a sweep; each distinct split is looked at once.

    Raises:
      ConfigError: for sizes that a data set cannot give.
    """
    tables: dict[str, tuple[data.Table, list[data.Split]]] = {}
    seen: set[str] = set()
    for trial in trials:
        key = split_key(trial)
        if key not in seen:
            seen.add(key)
            spec = trial.config["data"]
            _, splits = tables.setdefault(canonical([spec["name"], spec["options"]]), (table_of(trial), []))
            splits.append(split_of(trial))
    return [said for table, splits in tables.values() if (said := duplicates.warning(table, splits))]


def split_key(trial: Trial) -> str:
    """Return what identifies a trial's split and what its data are scaled with."""
    return canonical([trial.config["data"], trial.seed, _own(trial)])


def val_rows_of(trial: Trial) -> int:
    """Return the most validation rows that a trial's data config can give, whatever its target size."""
    d = trial.config["data"]
    most = data.sizes(d["target_pool"], d["val_fraction"], d["source_size"], d["source_val_size"])
    return max(1, most.source_val + most.target_val)


def make_plan(trials: Sequence[Trial]) -> Plan:
    """Return the plan of some trials, everything checked that can be checked before anything is compiled.

    Raises:
      ConfigError: for a pattern that matches nothing, sizes that the data cannot give, a file of weights that does
        not fit.
    """
    plan = Plan({}, {}, {}, {})
    stages: dict[Any, tuple[Stage, ...]] = {}
    checked: set[Any] = set()
    weights: dict[str, str] = {}
    for trial in trials:
        digest = trial.hash
        if digest in plan.trials:
            continue
        plan.trials[digest] = trial
        table = table_of(trial)
        shape = tuple(table.x.shape[1:])
        # Trials of one phase list and one split config differ in nothing that is checked here.
        labels = (split_key(trial), tuple((p.tasks, p.select) for p in trial.phases))
        if labels not in checked:
            checked.add(labels)
            check_split(trial)
        signature = (trial.model(), canonical_phases(trial), shape, scaled(trial))
        if signature not in stages:
            stages[signature] = stages_of(trial, shape, scaled(trial))
        if (inputs := (table.sha256, trial.config["data"]["normalize"], trial.model())) not in checked:
            checked.add(inputs)
            check_inputs(trial, table, shape)
        if (images := (table.sha256, tuple(p.augment for p in trial.phases))) not in checked:
            checked.add(images)
            check_images(trial, table)
        init = trial.config["init"]
        if (begin := (canonical(init), trial.model(), shape)) not in checked:
            checked.add(begin)
            _check_init(trial, shape)
            weights[init["path"]] = weights_sha256(init["path"])
        _planned[digest] = weights[init["path"]]
        keys: list[str] = []
        for depth, stage in enumerate(stages[signature]):
            key = _address(trial, depth, table.sha256, _planned[digest])
            keys.append(key)
            if key not in plan.nodes:
                seen = {t for s in stages[signature][: depth + 1] for t in s.program.tasks}
                parent = keys[-2] if depth else None
                plan.nodes[key] = Node(key, parent, trial, stage, trial.target not in seen)
            plan.users.setdefault(key, []).append(digest)
        plan.chains[digest] = tuple(keys)
    return plan


def check_split(trial: Trial) -> None:
    """Check that a trial's data can be split as asked and that every phase has labels to train on.

    Raises:
      ConfigError: if not.
    """
    split = split_of(trial)
    for number, phase in enumerate(trial.phases):
        for task in phase.tasks:
            if not split.train[task].any():
                raise ConfigError(f'config.data: task "{task}" has no label in train, and phase {number} trains on it')
        if phase.select == "best" and not any(split.val[task].any() for task in phase.tasks):
            raise ConfigError(f'config.select = "best": phase {number} has no validation label: use "last"')


def check_inputs(trial: Trial, table: data.Table, shape: tuple[int, ...]) -> None:
    """Check that nothing is lost on the way from a table's inputs to what the model makes of them.

    Raises:
      ConfigError: for inputs that float32 cannot tell apart, and for a model that takes them as whole numbers (the ids
        of tokens), which scaling and bfloat16 would change.
    """
    way, dtype = trial.config["data"]["normalize"], trial.config["model"]["dtype"]
    try:
        if not scaled(trial):
            scaling.check_cast(table)
    except ValueError as error:
        raise ConfigError(f"config.data.{error}") from None
    if (scaled(trial) or dtype != "float32") and whole_numbers(trial.model(), shape):
        field, wrong, right = ("data.normalize", way, "none") if scaled(trial) else ("model.dtype", dtype, "float32")
        name = trial.config["model"]["name"]
        raise ConfigError(
            f'config.{field} = "{wrong}": model "{name}" takes its inputs as whole numbers, such as ids of tokens, '
            f'which that would change: must be "{right}"'
        )


def check_images(trial: Trial, table: data.Table) -> None:
    """Check that every phase that changes images at random has images to change.

    Raises:
      ConfigError: if not.
    """
    try:
        for phase in trial.phases:
            augmentation.check_images(phase.augment, table.x, table.name)
    except ValueError as error:
        raise ConfigError(f"config.{error}") from None


#: (name, inode, time of the last change, size) of a file, or of each file of a directory.
Stamp = tuple[tuple[str, int, int, int], ...]


def _stamp(path: str) -> Stamp:
    """Return what changes when the weights at a path do, as they may while a process lives; cheap to look at."""
    root, found = _weights_at(path), []
    for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
        if file.is_file():
            s = file.stat()
            found.append((str(file), s.st_ino, s.st_mtime_ns, s.st_size))
    return tuple(found)


def _weights_at(path: str) -> Path:
    """Return the file or directory that is loaded from a path: of a trial's directory, its model alone."""
    model = Path(path) / "model.safetensors"
    return model if model.is_file() else Path(path)


def _check_init(trial: Trial, shape: tuple[int, ...]) -> None:
    init = trial.config["init"]
    if init["path"]:
        rename = tuple(map(tuple, init["rename"]))
        _checked_init(init["path"], _stamp(init["path"]), tuple(init["fresh"]), rename, trial.model(), shape)


@functools.lru_cache(maxsize=16)
def _checked_init(
    path: str,
    stamp: Stamp,
    fresh: tuple[str, ...],
    rename: tuple[tuple[str, str], ...],
    model: Any,
    shape: tuple[int, ...],
) -> None:
    try:
        wanted, (params, state) = shapes(model, shape), load_weights(path)
        merge(wanted.params, params, fresh, rename)
        if wanted.state and not state:
            raise ValueError(
                f"it holds no batch statistics, and the model has them ({', '.join(list(flatten(wanted.state))[:3])}, "
                "…): a trunk without its own normalises by zeros and ones"
            )
        if wanted.state:
            merge(wanted.state, state)
    except CheckpointError as error:
        raise ConfigError(f"config.init.path = {path}: {error}") from None
    except re.error as error:
        raise ConfigError(f"config.init.rename: {error} in a pattern or its replacement") from None
    except ValueError as error:
        raise ConfigError(f"config.init: {path}: {error}") from None


def weights_sha256(path: str) -> str:
    """Return the sha256 of the weights that are now at an ``init.path``; empty for the empty path.

    Raises:
      ConfigError: if there is nothing at that path.
    """
    return _sha256(path, _stamp(path)) if path else ""


@functools.lru_cache(maxsize=16)
def _sha256(path: str, stamp: Stamp) -> str:
    try:
        return sha256_of(_weights_at(path))
    except CheckpointError as error:
        raise ConfigError(f"config.init.path = {path}: {error}") from None


_planned: dict[str, str] = {}  # The sha256 of the weights that each trial was planned with, by hash.


def init_sha256(trial: Trial) -> str:
    """Return the sha256 of the weights that a planned trial began from, for its result; empty if from none.

    Raises:
      ConfigError: if the weights were changed since: nobody knows which ones the trial began from.
    """
    path = trial.config["init"]["path"]
    now = weights_sha256(path)
    if now != _planned.get(trial.hash, now):
        raise ConfigError(
            f"config.init.path = {path}: the weights were changed while trials began from them: run again, and leave "
            "them as they are until it is done"
        )
    return now


def _address(trial: Trial, depth: int, data_sha256: str, weights: str) -> str:
    """Return the address of a trial's phase: the sha256 of everything that decides its outcome."""
    c = trial.config
    phases = c["phases"][: depth + 1]
    spec = dict(c["data"])
    # Inputs are scaled by the training part of the target's pool too, whatever the number of its labels.
    if not any(trial.target in p["tasks"] for p in phases) and trial.target not in _own(trial):
        apart = _TARGET_ONLY[:1] if scaled(trial) else _TARGET_ONLY
        spec = {k: v for k, v in spoil.without(spec, trial.target).items() if k not in apart}
    content = {
        "phases": phases,
        "data": spec,
        "data_sha256": data_sha256,
        "code": code_version(),
        "init": [c["init"], weights],
        "own": _own(trial),
        **{
            k: c[k]
            for k in ("seed", "tasks", "evaluations", "accumulate", "model", "optimizer", "denominator", "format")
        },
    }
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:24]
