"""From a config to a fully resolved trial: the regime expanded, every rate a number, every duration in steps."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtl import adapt, balance, optim, regimes
from mtl.config import augmentation
from mtl.config.checks import UNITS, check, duration
from mtl.config.corruption import corruption
from mtl.config.declaration import SECTIONS
from mtl.config.fields import Flat
from mtl.config.problems import ConfigError, refused
from mtl.config.reference import check_reference, without_training
from mtl.config.targets import alone, asked, rows_of, section_of, settled
from mtl.config.tasks import tasks_of
from mtl.config.trial import Resolved, Trial, canonical
from mtl.data import nearest
from mtl.data.corrupt.split import FIELDS as CORRUPTING
from mtl.data.table import Table
from mtl.inputs import Shape
from mtl.models import MODELS, anatomy, build, options_of
from mtl.regimes import SAMPLINGS
from mtl.tasks import Task, suggest

#: The version of the resolved config's format.
FORMAT = 2


def resolve(flat: Flat, table: Table) -> Trial:
    """Return the fully resolved trial of a config.

    Args:
      flat: the config's fields.
      table: the data set.

    Raises:
      ConfigError: for anything out of range, a task, metric, model or regime that does not exist, or a regime that
        cannot be built.
    """
    check(flat)
    with refused():
        regime = regimes.get(flat["regime"], flat["regimes"])
    if regime.reference:
        flat = without_training(flat)
    flat = settled(flat, table.tasks)
    known = tasks_of(flat, table.tasks)
    if not flat["data.source"] or flat["data.rows"] == "shared":  # Then there is no pool of its rows.
        flat = {**flat, "data.source_size": 0, "data.source_val_size": 0}
    heads = (check_reference(flat, regime, table, known),) if regime.reference else known
    with refused():
        shape = table.shape
        flat = {**flat, "model.options": options_of(flat["model.name"], flat["model.options"], shape)}
        blocks = _blocks(flat["model.name"], repr(flat["model.options"]), heads, flat["model.head_init"], flat, shape)
    sections = {section: {last: flat[path] for path, last in fields} for section, fields in _SECTIONS.items()}
    sections["data"] = section_of(sections["data"]) | corruption(flat, known)
    sections["optimizer"] = _optimizer(sections["optimizer"])
    sections["balancer"] = _balancer(sections["balancer"])
    rows = functools.partial(rows_of, sections["data"], flat["seed"])
    named = regime.expand(len(blocks))
    if flat["init.path"] and not flat["data.source"] and named and named[0].begin != "random":
        named = regimes.without_source(named)
    about = alone(flat, regime)
    phases = tuple(_resolve_phase(i, p, flat, known, about, blocks, rows) for i, p in enumerate(named))
    if not phases:
        raise ConfigError(f'regime "{flat["regime"]}" has no phases: it must have at least one')
    if not any(len(p.tasks) > 1 and p.solver == "gradient" for p in phases):  # There is nothing to balance.
        sections["balancer"] = {"name": "equal", "options": {}}
        sections["optimizer"] = {**sections["optimizer"], "per_task": False}
    if "targets" in sections["data"]:  # A network has the heads that it trains.
        heads = tuple(t for t in known if any(t.name in p.tasks for p in phases))
    # What phases state in numbers is not stated twice: a rate that no phase uses must not change the hash.
    resolved = {
        "format": FORMAT,
        "seed": flat["seed"],
        "regime": flat["regime"],
        "phases": [p.stated() for p in phases],
        "tasks": [{k: v for k, v in vars(t).items() if v or k not in ("loss", "shape")} for t in heads],
        "evaluations": flat["evaluations"],
        "patience": flat["patience"],
        "accumulate": flat["accumulate"],
        "save_model": flat["save_model"],
        **sections,
        "denominator": flat["loss.denominator"],
    }
    if "targets" in sections["data"]:
        resolved["targets"] = [about] if about else [t for t in asked(flat) if t in phases[-1].tasks]
        if regime.judge == "each":
            resolved["judge"] = "each"
    if regime.scale_with == "own":
        resolved["scale_with"] = "own"
    try:
        return Trial(json.loads(canonical(resolved)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the config holds a value that JSON cannot: {error}") from None


#: (path, last part) of the fields of each section that goes into the resolved config as it is; see ``corruption``.
_SECTIONS = {
    section: [(f"{section}.{last}", last) for last in SECTIONS[section]._fields if last not in CORRUPTING]
    for section in ("data", "model", "optimizer", "balancer", "init", "ridge")
}

_known_optimizers: dict[tuple[Any, str], dict[str, Any]] = {}


def _optimizer(section: dict[str, Any]) -> dict[str, Any]:
    """Return the optimizer's section with every number that it takes; looked at once for all trials that share it."""
    key = (optim.OPTIMIZERS.get(section["name"]), repr(section))
    if key not in _known_optimizers:
        with refused():
            options = optim.options_of(section["name"], section["options"])
            optim.optimizer(section)
        _known_optimizers[key] = {
            **section,
            "options": options,
            "rates": {k: float(v) for k, v in section["rates"].items()},
        }
    return _known_optimizers[key]


def _balancer(section: dict[str, Any]) -> dict[str, Any]:
    """Return the balancer's section with all of its options."""
    with refused():
        return {**section, "options": balance.options_of(section["name"], section["options"])}


_known_blocks: dict[tuple[Any, ...], tuple[str, ...]] = {}


def _blocks(
    name: str, options: str, tasks: tuple[Task, ...], head_init: str, flat: Flat, shape: Shape
) -> tuple[str, ...]:
    """Return the model's blocks; built once for all trials of a sweep that share it."""
    key = (MODELS.get(name), name, options, tasks, head_init, shape)
    if key not in _known_blocks:
        _known_blocks[key] = anatomy(build(name, flat["model.options"], tasks, head_init), shape).blocks
    return _known_blocks[key]


def _resolve_phase(
    number: int,
    phase: regimes.Phase,
    flat: Flat,
    known: Sequence[Task],
    about: str,
    blocks: tuple[str, ...],
    rows: Callable[[Sequence[str]], int],
) -> Resolved:
    name, source, targets = flat["regime"], tuple(flat["data.source"]), asked(flat)
    groups = {"source": source, "target": (about,), "source+target": (*source, *targets)}
    tasks = groups.get(phase.tasks, phase.tasks) if isinstance(phase.tasks, str) else phase.tasks
    if isinstance(tasks, str) or not set(tasks) <= {*source, *targets} or len(set(tasks)) < len(tasks):
        raise ConfigError(
            f'regime "{name}": tasks = {phase.tasks!r}: must be "source", "target", "source+target" '
            f"or a tuple of {', '.join((*source, *targets))}, each once"
        )
    if not source and (phase.tasks == "source" or (phase.tasks == "source+target" and len(targets) == 1)):
        raise ConfigError(
            f'config.data.source = (): regime "{name}" trains on the source; name at least one source task'
        )
    if not tasks:
        raise ConfigError(f'regime "{name}": tasks = (): a phase must name at least one task')
    _check_phase(phase, name)
    joint = not set(tasks).isdisjoint(targets) and len(tasks) > 1
    sampling = phase.sampling or flat["joint_sampling" if joint else "source_sampling"]
    batch = phase.batch or flat["batch_size"]
    rates = {"lr": flat["lr"], "source_lr": flat["source_lr"]}
    if isinstance(phase.lr, str) and phase.lr not in rates:
        raise ConfigError(f'regime "{name}": lr = "{phase.lr}": {suggest(phase.lr, rates)}, or a number')
    with refused(f'regime "{name}": '):
        adapts = _adapt(phase)
        below = adapt.pattern(json.loads(adapts)["name"]) if adapts else ""
        trainable = regimes.trainable_patterns(phase.trainable, tasks, blocks, below)
    several = len(tasks) > 1
    rounds = (phase.round_steps or flat["round_steps"]) if sampling == "one_task" and several else 0
    if 0 < rounds < len(tasks):
        where = f'regime "{name}": round_steps' if phase.round_steps else "config.round_steps"
        raise ConfigError(f"{where} = {rounds}: must be 0, or at least {len(tasks)}: a round has each task of a phase")
    closed, warmth = phase.solver != "gradient", float(phase.temperature or flat["temperature"])
    drawn = batch * (len(tasks) if sampling == "per_task" else 1)
    steps = 1 if closed else _steps(phase, flat, tasks, drawn, rows)
    if steps >= 2**31:
        raise ConfigError(f'regime "{name}": a phase of {steps:,} steps: must be less than {2**31:,}')
    if (between := math.ceil(steps / flat["evaluations"]) * drawn) >= 2**31:  # A curve's labels are counted in 32 bits.
        raise ConfigError(
            f'config.evaluations = {flat["evaluations"]}: regime "{name}" has a phase of {between:,} examples between '
            f"two evaluations: must be less than {2**31:,}"
        )
    if closed and (phase.trainable != "head" or (phase.trunk_mode or flat["trunk_mode"]) != "eval"):
        raise ConfigError(
            f'regime "{name}": solver = "{phase.solver}": needs trainable = "head" and trunk_mode = "eval"'
        )
    if closed and (dense := next((t.name for t in known if t.name in tasks and t.shape), "")):
        raise ConfigError(
            f'regime "{name}": solver = "{phase.solver}": is for one label an example, and {dense} has many'
        )
    own = {
        "tasks": tasks,
        "trainable": trainable,
        "fresh": regimes.fresh_patterns(phase.fresh, (about,) if about else targets),
        # A closed form has no rate: one spelling, one hash.
        "lr": 0.0 if closed else float(rates[phase.lr] if isinstance(phase.lr, str) else phase.lr),
        "total_steps": steps,
        "batch": batch,
        # A phase of one task is the same under every way of mixing: one spelling, one hash.
        "sampling": sampling if several else "per_task",
        "temperature": warmth if several and (sampling == "temperature" or rounds) else 1.0,
        "trunk_mode": phase.trunk_mode or flat["trunk_mode"],
        "select": "last" if closed else phase.select or flat["select"],
        "round_steps": rounds,
        "augment": _augment(phase, flat, [t for t in known if t.name in tasks]),
        "begin": _begin(number, phase, flat),
        "adapt": adapts,
    }
    return Resolved(**{**vars(phase), **own})


def _adapt(phase: regimes.Phase) -> str:
    """Return a phase's adapter as canonical JSON, or nothing."""
    if not phase.adapt:
        return ""
    name, given = (phase.adapt, {}) if isinstance(phase.adapt, str) else (*phase.adapt, {}, None)[:2]
    if not isinstance(name, str) or not isinstance(given, Mapping) or len(phase.adapt[2:]) * (name != phase.adapt):
        raise ValueError(f"adapt = {phase.adapt!r}: must be a name, or (name, {{option: value}})")
    given = dict(given)
    layers = given.pop("layers", "backbone/.*")
    try:
        re.compile(layers)
    except (TypeError, re.error) as error:
        raise ValueError(f"adapt: layers = {layers!r}: must be a regular expression: {error}") from None
    if phase.solver != "gradient" or phase.trainable == "head":
        raise ValueError(f'adapt = "{name}": trains beside the backbone: must be empty where heads alone train')
    return canonical({"name": name, "options": adapt.options_of(name, given), "layers": layers})


def _begin(number: int, phase: regimes.Phase, flat: Flat) -> str:
    """Return ``init`` if a phase begins from loaded weights, else nothing."""
    name, path = flat["regime"], flat["init.path"]
    if number and phase.begin:
        raise ConfigError(
            f'regime "{name}": phase {number}: begin = "{phase.begin}": is of a first phase; later ones go on from the '
            "one before: leave it out"
        )
    if phase.begin == "init" and not path:
        raise ConfigError(f'config.init.path = "": regime "{name}" begins from loaded weights: must name them')
    return "init" if not number and path and phase.begin != "random" else ""


def _augment(phase: regimes.Phase, flat: Flat, tasks: Sequence[Task]) -> augmentation.Spec:
    """Return how a phase changes its images; a closed form has no training batches."""
    name, own = flat["regime"], phase.augment
    if isinstance(own, str) and own not in ("", "none"):
        raise ConfigError(f'regime "{name}": augment = "{own}": must be "none", or a tuple of operations')
    if phase.solver != "gradient":
        if own and own != "none":
            raise ConfigError(
                f'regime "{name}": solver = "{phase.solver}": sees each image once, as it is: leave augment out'
            )
        return ()
    given = flat["augment"] if own == "" else () if isinstance(own, str) else own
    with refused("config." if own == "" else f'regime "{name}": '):
        return augmentation.parse(given, tasks)


#: What the words of a phase can be; empty ones stand for the config's.
_WORDS = {
    "budget": ("source", "target", "source+target"),
    "equal": ("updates", "examples"),
    "sampling": ("", *SAMPLINGS),
    "trunk_mode": ("", "eval", "train"),
    "select": ("", "last", "best"),
    "solver": ("gradient", "ridge", *regimes.REFERENCES),
    "begin": ("", "random", "init"),
}


def _check_phase(phase: regimes.Phase, name: str) -> None:
    """Refuse words and numbers that a regime's phase cannot have; the config's own are checked by ``check``."""
    for field, valid in _WORDS.items():
        if (word := getattr(phase, field)) not in valid:
            raise ConfigError(f'regime "{name}": {field} = "{word}": {suggest(str(word), filter(None, valid))}')
    for field in ("lr", "share"):
        value = getattr(phase, field)
        if not isinstance(value, str) and not 0 < value < math.inf:
            raise ConfigError(f'regime "{name}": {field} = {value}: must be a finite number above 0')
    for field in UNITS:
        value = getattr(phase, field)
        if not 0 <= value < math.inf:
            raise ConfigError(f'regime "{name}": {field} = {value}: must be a finite number, at least 0 (0: not set)')


def _steps(
    phase: regimes.Phase, flat: Flat, tasks: tuple[str, ...], batch: int, rows: Callable[[Sequence[str]], int]
) -> int:
    """Return a phase's steps, to the nearest (halves up), at least one.

    A budget is a number of updates, the same whatever their batches hold; where it is said in epochs or examples, it is
    that of batches of ``batch_size``. A duration of the phase's own is over the rows of its own batches. An epoch goes
    through as many examples as there are rows that have a training label of any of its tasks.

    Args:
      phase: the phase.
      flat: the config's fields.
      tasks: names of the phase's tasks.
      batch: rows of its batch.
      rows: from tasks to the number of rows that have a training label of any.
    """
    given = {unit: amount for unit in UNITS if (amount := getattr(phase, unit))}
    if len(given) > 1:
        raise ConfigError(f'regime "{flat["regime"]}": a phase sets {" and ".join(given)}: set at most one')
    if given:
        ((unit, amount),) = given.items()
        if unit == "total_steps":
            return int(amount)
        return max(1, _whole((amount if unit == "total_examples" else amount * rows(tasks)) / batch))
    updates, groups = 0.0, {"source": tuple(flat["data.source"]) or asked(flat), "target": asked(flat)}
    for part in phase.budget.split("+"):
        unit, amount = duration(part, flat)
        if unit == "total_epochs":
            amount *= rows(groups[part])
        updates += amount / (1 if unit == "total_steps" else flat["batch_size"])
    if not updates and flat["data.targets"]:
        raise ConfigError(
            f'config.source: nothing set, and regime "{flat["regime"]}" has a phase that spends it: set one of '
            f"{', '.join(UNITS)}"
        )
    if phase.equal == "examples":
        updates *= flat["batch_size"] / batch
    return max(1, _whole(phase.share * updates))


def _whole(steps: float) -> int:
    """Return steps to the nearest, halves up; of more than can be counted, more than are allowed."""
    return nearest(min(steps, 2.0**40))
