"""What a set of trials comes to: distinct phases, the programs they need, and the steps they take.

A phase is addressed by its content: the resolved config of the phases up to it, and the fingerprint of what decides its
numbers beside that. Trials that begin alike share the phases they have in common, and each distinct one is trained
once.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from mtl import data
from mtl.config import ConfigError, Flat, Trial, augmentation, canonical, resolve
from mtl.data import duplicates, scaling
from mtl.data.corrupt.split import without
from mtl.data.scaling import Scaling
from mtl.data.streamed import Streamed
from mtl.inputs import Shape
from mtl.models import whole_numbers
from mtl.sweep.fingerprint import Fingerprint, digests, fingerprint
from mtl.sweep.labelled import check_batches, check_folds, check_labels
from mtl.sweep.sources import Sources
from mtl.sweep.weights import brought, check_init, weights_sha256
from mtl.train.names import Numbered, nameless
from mtl.train.trial import Stage, stage_key, stages_of

#: Fields of ``data`` that a phase without the target's labels does not depend on.
_TARGET_ONLY = ("target_size", "folds", "fold_repeats", "val_fraction")


@dataclasses.dataclass(frozen=True)
class Node:
    """One distinct phase.

    Attributes:
      key: its address.
      parent: the address of the phase before it, if any.
      trial: a trial it belongs to (all of them agree on everything that matters to it).
      stage: the phase.
      number: which of the trial's phases it is.
      source_only: whether it sees no label of a target.
      after: of a phase on all n labels, the same phase on each of their folds: these say how many steps it has.
    """

    key: str
    parent: str | None
    trial: Trial
    stage: Stage
    number: int
    source_only: bool
    after: tuple[str, ...] = ()

    @functools.cached_property
    def compiled(self) -> Numbered:
        """The phase as it is compiled: whatever its tasks are called."""
        return nameless(self.stage, table_of(self.trial).shape)


@dataclasses.dataclass
class Plan:
    """The distinct phases of some trials.

    Attributes:
      trials: by hash, in the order given.
      nodes: by key, parents before children, folds before what rests on them.
      chains: for each trial, the keys of its phases.
      folds: for each trial, the chains of its folds; with those it begins with that see no label of the target.
      users: for each node, the trials that rest on it.
      fingerprints: of each trial.
    """

    trials: dict[str, Trial]
    nodes: dict[str, Node]
    chains: dict[str, tuple[str, ...]]
    folds: dict[str, list[tuple[str, ...]]]
    users: dict[str, list[str]]
    fingerprints: dict[str, Fingerprint]

    def phases_of(self, digest: str) -> list[str]:
        """Return the distinct phases that a trial rests on, those of its folds included."""
        return list(dict.fromkeys(itertools.chain(*self.folds[digest], self.chains[digest])))

    def steps(self) -> int:
        """Return the steps that the distinct phases take, at most."""
        return sum(n.stage.steps for n in self.nodes.values())

    def steps_unshared(self) -> int:
        """Return the steps that the trials would take if each trained all of its phases."""
        return sum(self.nodes[k].stage.steps for digest in self.trials for k in self.phases_of(digest))

    def programs(self) -> int:
        """Return the number of distinct training programs to compile; references have none."""
        return len({n.compiled.stage.program for n in self.nodes.values() if not n.trial.reference})

    def program_key(self, key: str) -> str:
        """Return what identifies a phase's program in a work directory, whatever process looks."""
        node = self.nodes[key]
        c, p = node.trial.config, node.compiled.stage.program
        static = {f.name: getattr(p, f.name) for f in dataclasses.fields(p)}
        optimizer = {**vars(p.optimizer), "rule": c["optimizer"]["name"]}
        static["solver"] = [type(p.solver).__name__, vars(p.solver)]
        static["balancer"] = p.balancer and [c["balancer"]["name"], p.balancer.static]
        static["adapter"] = p.adapter and [p.adapter.name, p.adapter.static, p.adapter.layers]
        static |= {"model": c["model"], "specs": [vars(t) for t in p.model.tasks], "optimizer": optimizer}
        static["augment"] = augmentation.stated(p.augment)
        return hashlib.sha256(canonical(static).encode()).hexdigest()[:16]

    def saved(self, key: str) -> bool:
        """Return whether a phase is kept on disk: a source phase, or one that several trials rest on."""
        return self.nodes[key].source_only or len(self.users[key]) > 1


def trial_of(flat: Flat) -> Trial:
    """Return the trial that the fields of a config come to.

    Raises:
      ConfigError: for anything that cannot be; naming the field, the value and what would be right.
    """
    return resolve(flat, load_table(flat["data.name"], flat["data.options"]))


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


def look_again() -> None:
    """Forget what tables hold: in a process that lives on, the files they were read from may have changed since."""
    data.forget()
    _tables.clear()


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
    own = brought(trial, table_of(trial))
    if own is not None:
        return own.shift is not None
    return scaling.changes(table_of(trial), trial.config["data"]["normalize"])


def scaling_of(trial: Trial) -> Scaling:
    """Return what a trial's inputs and labels are scaled with: inputs as the weights bring it that it begins from."""
    table = table_of(trial)
    own = scaling.fit(table, split_of(trial), trial.config["data"]["normalize"], _own(trial))
    given = brought(trial, table)
    return own if given is None else dataclasses.replace(given, units=own.units)


def _own(trial: Trial) -> tuple[str, ...]:
    """Return the tasks whose labelled rows a control is scaled by; none for a regime that is scaled as all others."""
    if trial.config.get("scale_with") != "own":
        return ()
    return tuple(sorted({t for p in trial.phases for t in p.tasks}))


def data_warnings(trials: Sequence[Trial]) -> list[str]:
    """Return a sentence for each data set of which some trial tests on copies of what it learns from.

    Before it stand those on its cells that might be doubted (``Table.told``).

    Args:
      trials: of a sweep; each distinct split is looked at once.

    Raises:
      ConfigError: for sizes that a data set cannot give.
    """
    splits: dict[data.Table, list[data.Split]] = {}
    for trial in {canonical([trial.config["data"], trial.seed]): trial for trial in trials}.values():
        splits.setdefault(table_of(trial), []).append(split_of(trial))
    said = [f"{table.name}: {sentence}" for table in splits for sentence in table.told[table.decided :]]
    said += [duplicates.warning(table, drawn) for table, drawn in splits.items()]
    return [sentence for sentence in said if sentence]


def split_key(trial: Trial) -> str:
    """Return what identifies a trial's split and what its data are scaled with."""
    return canonical([trial.config["data"], trial.seed, _own(trial), trial.loads])


def labels_key(trial: Trial) -> Any:
    """Return what decides whether a trial has the labels that it goes by."""
    phases = tuple((p.tasks, p.select, p.solver) for p in trial.phases)
    return split_key(trial), phases, trial.config["ridge"]["choose"]


def val_rows_of(trial: Trial) -> int:
    """Return the most validation rows that a trial's data config can give, whatever its target size."""
    asked = data.Asked.of(trial.config["data"])
    of_targets = dataclasses.replace(asked, target_size=asked.target_pool, folds=0).target_val
    if "fold" in trial.config["data"]:  # Of groups, one may be as large as all.
        of_targets = asked.target_pool if table_of(trial).groups is not None else -(-asked.target_pool // asked.folds)
    return max(1, asked.source_val_size + of_targets)


def make_plan(trials: Sequence[Trial], sources: Sources = Sources()) -> Plan:  # noqa: B008 — it cannot change
    """Return the plan of some trials, everything checked that can be checked before anything is compiled.

    Args:
      trials: resolved.
      sources: what the config file adds to the code.

    Raises:
      ConfigError: for a pattern that matches nothing, sizes that the data cannot give, a file of weights that does
        not fit.
    """
    plan = Plan({}, {}, {}, {}, {}, {})
    stages: dict[Any, tuple[Stage, ...]] = {}
    checked: set[Any] = set()

    def differs(*key: Any) -> bool:
        """Return whether no trial before was of this key: those that are differ in nothing that is checked."""
        known = key in checked
        checked.add(key)
        return not known

    for trial in trials:
        digest = trial.hash
        if digest in plan.trials:
            continue
        plan.trials[digest] = trial
        table, model, moved = table_of(trial), trial.model(), scaled(trial)
        shape = table.shape
        if differs(labels_key(trial)):
            for part in trial.chosen_by:
                check_labels(part, split_of(part))
        signature = (stage_key(trial), shape, moved)
        if signature not in stages:
            stages[signature] = stages_of(trial, shape, moved)
        if differs(table.sha256, trial.config["data"]["normalize"], model, trial.loads):
            check_inputs(trial, table, shape)
        if isinstance(table.x, Streamed):
            check_batches(trial, stages[signature])
        check_folds(trial, stages[signature])
        if differs(table.sha256, tuple(p.augment for p in trial.phases)):
            check_images(trial, table)
        check_init(trial, shape)
        plan.fingerprints[digest] = fingerprint_of(trial, sources)
        keys = [_address(trial, depth, plan.fingerprints[digest]) for depth in range(len(stages[signature]))]
        plan.chains[digest], plan.folds[digest] = tuple(key for key, _ in keys), []
        _add(plan, trial, [key for key, folded in keys if not folded], stages[signature])
        for number, fold in enumerate(trial.folds):
            plan.folds[digest].append(tuple(f"{key}-{number}" if folded else key for key, folded in keys))
            _add(plan, fold, plan.folds[digest][-1], stages[signature])
        _add(plan, trial, plan.chains[digest], stages[signature], plan.folds[digest])
        for key in plan.phases_of(digest):
            plan.users.setdefault(key, []).append(digest)
    return plan


def _add(
    plan: Plan, trial: Trial, chain: Sequence[str], stages: Sequence[Stage], folds: Sequence[Sequence[str]] = ()
) -> None:
    """Add a chain's phases, or the first of them, to a plan, unless they are there; ``folds`` are its folds' chains."""
    for depth, (key, stage) in enumerate(zip(chain, stages, strict=False)):
        if key in plan.nodes:
            continue
        seen = {t for s in stages[: depth + 1] for t in s.program.tasks}
        after = tuple(fold[depth] for fold in folds if fold[depth] != key)
        if after:  # Nothing is left to select by, or to stop by.
            stage = dataclasses.replace(stage, select="last", hypers=dataclasses.replace(stage.hypers, patience=0))
        parent = chain[depth - 1] if depth else None
        plan.nodes[key] = Node(key, parent, trial, stage, depth, seen.isdisjoint(trial.asked), after)


def check_inputs(trial: Trial, table: data.Table, shape: Shape) -> None:
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
        raise ConfigError(f'config.data.normalize = "{way}": {error}') from None
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
            tasks = [t for t in trial.tasks if t.name in phase.tasks]
            augmentation.check_images(phase.augment, table.x, table.name, tasks)
    except ValueError as error:
        raise ConfigError(f"config.{error}") from None


def fingerprint_of(trial: Trial, sources: Sources) -> Fingerprint:
    """Return what decides a trial's numbers beside its config, as it is now.

    Args:
      trial: resolved.
      sources: what the config file adds to the code.

    Raises:
      ConfigError: for a data set, an option or weights that do not exist.
    """
    spec, path = trial.config["data"], trial.loads
    read_from = str(spec["options"].get("path", spec["name"]))
    return fingerprint((table_of(trial).sha256, read_from), sources, (weights_sha256(path), path))


#: Parts of the config that decide every phase.
_OF_EVERY_PHASE = (*("seed", "tasks", "evaluations", "patience", "accumulate", "model", "denominator", "format"),)


def _address(trial: Trial, depth: int, planned: Fingerprint) -> tuple[str, bool]:
    """Return (the address of a trial's phase, whether the folds are among what decides its outcome).

    It is the sha256 of everything that does.
    """
    c = trial.config
    phases = c["phases"][: depth + 1]
    spec = dict(c["data"])
    # Inputs are scaled by the training part of the target's pool too, whatever the number of its labels. A head of a
    # regression that is loaded is turned to the unit of its own labels before the first phase.
    turned = bool(trial.loads) and any(t.scaled for t in trial.tasks if t.name in trial.asked)
    seen = {task for p in phases for task in p["tasks"]} | set(_own(trial))
    if seen.isdisjoint(trial.asked) and not turned and spec.get("rows") != "shared":
        apart = _TARGET_ONLY[:-1] if scaled(trial) else _TARGET_ONLY
        for target in trial.asked:
            spec = without(spec, target)
        spec = {k: v for k, v in spec.items() if k not in apart}
    several = any(len(p["tasks"]) > 1 for p in phases)
    content = {
        "phases": phases,
        "data": spec,
        "fingerprint": digests(planned),
        # Random weights are the same whatever ``init`` says: what begins with them is shared between settings of it.
        "init": c["init"] if trial.loads else {},
        "own": _own(trial),
        **({"judging": trial.judging} if trial.judging != trial.asked else {}),
        **{k: c[k] for k in _OF_EVERY_PHASE},
        # What weighs the gradients of several tasks decides no phase before the first that has several.
        "balancer": c["balancer"] if several else None,
        "optimizer": c["optimizer"] if several else {**c["optimizer"], "per_task": False},
    }
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:24], "folds" in spec
