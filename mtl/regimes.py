"""Phases, and the table of regimes: transfer and multi-task learning as one program with different data in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args

from mtl.options import checked, same
from mtl.paths import exactly, join
from mtl.ranges import Range
from mtl.tasks import suggest

#: How tasks mix, see ``train.sampling``.
Sampling = Literal["per_task", "rows", "uniform", "temperature", "one_task"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)

#: Solvers that are models of scikit-learn, and regimes of that name: what the same labels are worth without a network.
REFERENCES = ("logistic_regression", "forest")


@dataclasses.dataclass(frozen=True)
class Phase:
    """Which labels are seen, which parameters move, which start fresh, and for how long.

    Attributes:
      tasks: ``source``, ``target``, ``source+target``, or a tuple of task names. In a study of several targets the
        target is the one that a trial is about, and ``source+target`` are the sources and all targets.
      trainable: ``all``; ``head`` (the heads of the phase's tasks); ``last_k`` (these and the last k blocks of the
        backbone); or a regular expression on whole parameter paths, or several. Heads of other tasks never move.
      fresh: what starts anew: ``head`` (the target's), ``backbone``, or regular expressions on whole paths. A fresh
        parameter takes the replicate's initial value.
      lr: name of a learning rate in the config (``lr``, which is tuned for each regime, or ``source_lr``, which is
        tuned once on source validation), or a number.
      budget: ``source``, ``target`` or ``source+target``: which of the config's budgets it spends, in updates.
      share: the share of that budget.
      equal: ``updates``, or of a control ``examples``: so few updates that it draws as many rows as updates of the
        config's ``batch_size`` would.
      total_steps, total_epochs, total_examples: a duration of its own instead of a budget; at most one.
      batch: rows of a batch, of each task with ``per_task`` sampling; 0 for the config's ``batch_size``.
      sampling: how tasks mix, see ``train.sampling``; empty for the config's ``joint_sampling`` (source and target
        together) or ``source_sampling``.
      temperature, round_steps: of ``temperature`` and ``one_task`` sampling; 0 for the config's.
      trunk_mode: ``eval`` or ``train`` for blocks without trainable parameters; empty for the config's.
      select: ``last`` or ``best`` (on validation) goes on; empty for the config's.
      augment: how training images are changed, as the config's ``augment`` says it: ``none``, or a tuple; empty for
        the config's.
      begin: what the first phase begins from: ``random``, the replicate's initial weights, whatever else there is;
        ``init``, the weights at the config's ``init.path``, which must be set; or empty, those weights if it is set
        and else random ones. Later phases go on from the one before, and leave it empty.
      adapt: an adapter of the backbone's dense layers: a name (see ``mtl.adapt``), or (name, {option: value}), where
        the option ``layers`` is a regular expression on paths of layers; empty for none. ``all`` and ``last_k`` then
        train the adapters in place of the backbone, which stays; kernels take them up when the phase ends.
      solver: ``gradient`` (steps of the optimizer), or ``ridge``: the heads in closed form, see ``train.ridge``; then
        ``trainable`` is ``head``, and there is neither a rate nor a duration, and images stay as they are. Or one of
        ``REFERENCES``: a model of scikit-learn in place of the network, see ``train.reference``; then there is no other
        phase, and nothing that a network is trained by decides anything.
    """

    tasks: str | tuple[str, ...] = "target"
    trainable: str | tuple[str, ...] = "all"
    fresh: tuple[str, ...] = ()
    lr: str | float = "lr"
    budget: str = "target"
    share: float = 1.0
    equal: str = "updates"
    total_steps: int = 0
    total_epochs: float = 0.0
    total_examples: int = 0
    batch: Annotated[int, Range(0)] = 0
    sampling: str = ""
    temperature: Annotated[float, Range(0)] = 0.0
    round_steps: Annotated[int, Range(0, 4096)] = 0
    trunk_mode: str = ""
    select: str = ""
    augment: str | tuple[Any, ...] = ""
    begin: str = ""
    adapt: str | tuple[Any, ...] = ""
    solver: str = "gradient"


@dataclasses.dataclass(frozen=True)
class Regime:
    """A tuple of phases with a name that tables print.

    Attributes:
      phases: the phases, or a function from the number of backbone blocks to the phases.
      summary: one line for people.
      control: whether it is a control, not a contender.
      scale_with: whose rows inputs are scaled by: those of all training ``pools``, the same for every regime and
        size, or for a control the regime's ``own`` labelled rows.
      judge: by what states and rates are chosen where a network is for several targets: ``all`` of them together, or
        ``each`` by itself, so that each has a trial of its own that trains the same.
    """

    phases: tuple[Phase, ...] | Callable[[int], tuple[Phase, ...]]
    summary: str
    control: bool = False
    scale_with: str = "pools"
    judge: str = "all"

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.scale_with not in ("pools", "own"):
            raise ValueError(f'scale_with = {self.scale_with!r}: must be "pools" or "own"')
        if self.judge not in ("all", "each"):
            raise ValueError(f'judge = {self.judge!r}: must be "all" or "each"')

    def expand(self, blocks: int) -> tuple[Phase, ...]:
        """Return the phases for a backbone of so many blocks."""
        return self.phases(blocks) if callable(self.phases) else self.phases

    @property
    def reference(self) -> bool:
        """Whether a model of scikit-learn stands in place of the network."""
        return any(phase.solver in REFERENCES for phase in self.expand(1))

    @property
    def alone(self) -> bool:
        """Whether each of several targets has a network of its own: some phase sees it alone, or it alone judges."""
        return self.judge == "each" or any(phase.tasks == "target" for phase in self.expand(1))


_SOURCE = Phase(tasks="source", lr="source_lr", budget="source")


def _gradual(blocks: int) -> tuple[Phase, ...]:
    """Unfreeze from the top: the head, then one more block a phase (Howard & Ruder 2018, arXiv:1801.06146)."""
    share = 1.0 / (blocks + 1)
    first = Phase(trainable="head", fresh=("head",), share=share)
    return (_SOURCE, first, *(Phase(trainable=f"last_{k}", share=share) for k in range(1, blocks + 1)))


#: The regimes by name. All have one total of updates, source budget + target budget; validation may end a phase early.
#: What a name promises holds with ``init.path`` too: "scratch" and "random" are random always, the others transfer
#: from the loaded weights (see ``without_source`` for those weights in place of a source).
REGIMES: dict[str, Regime] = {
    "scratch": Regime((Phase(budget="source+target", begin="random"),), "target only, from random weights"),
    "random_probe": Regime(
        (Phase(trainable="head", fresh=("head",), budget="source+target", begin="random"),),
        "a head on a trunk that was never trained",
        control=True,
    ),
    "linear_probe": Regime(
        (_SOURCE, Phase(trainable="head", fresh=("head",))), "source, then a fresh head on the frozen trunk"
    ),
    "ridge_probe": Regime(
        (_SOURCE, Phase(trainable="head", fresh=("head",), solver="ridge")),
        "source, then a ridge head in closed form on the frozen trunk",
    ),
    "finetune": Regime((_SOURCE, Phase(fresh=("head",))), "source, then everything on the target"),
    "lora": Regime(
        (_SOURCE, Phase(fresh=("head",), adapt="lora")),
        "source, then low-rank adapters of its dense layers and a fresh head (Hu et al. 2021, arXiv:2106.09685)",
    ),
    "lp_ft": Regime(
        (_SOURCE, Phase(trainable="head", fresh=("head",), share=0.5), Phase(share=0.5)),
        "source, then the head, then everything (Kumar et al. 2022, arXiv:2202.10054)",
    ),
    "gradual": Regime(_gradual, "source, then the head, then one more block at a time from the top"),
    "multitask": Regime(
        (Phase(tasks="source+target", budget="source+target"),),
        "source and target together",
    ),
    "multitask_best_each": Regime(
        (Phase(tasks="source+target", budget="source+target"),),
        "source and target together, each target with the state and rate that are best for it: K states, not one model",
        control=True,
        judge="each",
    ),
    "multitask_finetune": Regime(
        (Phase(tasks="source+target", lr="source_lr", budget="source"), Phase()),
        "source and target together, then the target alone",
    ),
    "multitask_examples": Regime(
        (Phase(tasks="source+target", budget="source+target", equal="examples"),),
        "source and target together, with as many examples as the target alone would have: fewer updates",
        control=True,
    ),
    "scratch_own_scale": Regime(
        (Phase(budget="source+target", begin="random"),),
        "target only, inputs scaled by its own training labels' rows alone: what sharing the scaling decides",
        control=True,
        scale_with="own",
    ),
    "logistic_regression": Regime(
        (Phase(trainable="head", begin="random", solver="logistic_regression"),),
        "no network: scikit-learn's logistic regression (ridge regression of numbers) on the target's labels",
        control=True,
    ),
    "forest": Regime(
        (Phase(trainable="head", begin="random", solver="forest"),),
        "no network: scikit-learn's random forest on the target's labels",
        control=True,
    ),
    "source": Regime((_SOURCE,), "the source alone; used to tune its learning rate", control=True),
}


def register(name: str, regime: Regime) -> None:
    """Register a regime under ``name``, from a config file or elsewhere.

    Raises:
      ValueError: if the name is taken by another regime.

    >>> register("probe_then_last", Regime((_SOURCE, Phase(trainable="last_1", fresh=("head",))), "an example"))
    """
    if "@" in name:
        raise ValueError(f'regime "{name}": a name must have no @, which stands before how often a budget is taken')
    known = REGIMES.get(name)
    if known is not None and not _same(known, regime):
        raise ValueError(f'regime "{name}" is already registered; choose another name')
    REGIMES[name] = regime


def _same(known: Regime, made: Regime) -> bool:
    if callable(known.phases) and callable(made.phases) and same(known.phases, made.phases):
        made = dataclasses.replace(made, phases=known.phases)
    return known == made


def get(name: str, own: Mapping[str, Any] | None = None) -> Regime:
    """Return the regime of that name; ``scratch@2`` is the control that trains ``scratch`` at twice the budget.

    Args:
      name: its name.
      own: regimes that a config writes itself, as ``plain`` returns them.

    Raises:
      ValueError: if there is none, naming the valid ones.
    """
    own = own or {}
    base, at, times = name.partition("@")
    if at and not (times.isascii() and times.isdecimal() and int(times) > 1):
        raise ValueError(f'regime = "{name}": behind the @ must be how often its budget is taken, as in "scratch@2"')
    if base not in own and base not in REGIMES:
        raise ValueError(f'regime = "{name}": {suggest(base, [*REGIMES, *own])}')
    found = read(own[base]) if base in own else REGIMES[base]
    return _longer(found, int(times)) if at else found


def _longer(regime: Regime, times: int) -> Regime:
    """Return the control that trains a regime's phases so many times as long."""

    def phases(blocks: int) -> tuple[Phase, ...]:
        lengths = ("share", "total_steps", "total_epochs", "total_examples")
        return tuple(
            dataclasses.replace(p, **{name: times * getattr(p, name) for name in lengths})
            for p in regime.expand(blocks)
        )

    return dataclasses.replace(
        regime, phases=phases, summary=f"{regime.summary}; {times} times the budget", control=True
    )


def read(value: Any) -> Regime:
    """Return the regime that a config writes as a tuple of phases.

    Args:
      value: a tuple of ``Phase`` or of dictionaries of its fields; a dictionary with ``phases``, ``summary``,
        ``control``, ``scale_with`` and ``judge``; or a ``Regime``.

    Raises:
      ValueError: for anything else, naming what is wrong.

    >>> read(({"trainable": "head", "fresh": ("head",)}, Phase())).phases[0].trainable
    'head'
    """
    if isinstance(value, Regime):
        return value
    parts = {"phases": value} if isinstance(value, tuple | list) else value
    if not isinstance(parts, Mapping):
        raise ValueError(f"{value!r}: must be a tuple of phases")
    for key in parts:
        if key not in _REGIME:
            raise ValueError(f"{key} does not exist: {suggest(str(key), _REGIME)}")
    phases, summary, control = parts.get("phases", ()), parts.get("summary", ""), parts.get("control", False)
    if not isinstance(phases, tuple | list) or not phases:
        raise ValueError(f"phases = {phases!r}: must be a tuple of at least one phase")
    if not isinstance(summary, str) or not isinstance(control, bool):
        raise ValueError(f"summary = {summary!r}, control = {control!r}: must be a text, and True or False")
    words = {name: str(parts[name]) for name in _WORDS if name in parts}
    return Regime(tuple(_phase(i, p) for i, p in enumerate(phases)), summary, control, **words)


_WORDS = ("scale_with", "judge")
_REGIME = ("phases", "summary", "control", *_WORDS)


def _phase(number: int, value: Any) -> Phase:
    fields = vars(value) if isinstance(value, Phase) else value
    if not isinstance(fields, Mapping):
        raise ValueError(f"phase {number}: {value!r}: must be a Phase, or a dictionary of its fields")
    return Phase(**checked(Phase, fields, f"phase {number}: ", "a phase"))


def plain(value: Any) -> dict[str, Any]:
    """Return a regime that a config writes as what JSON can hold: what differs from a default phase.

    Raises:
      ValueError: as ``read``, and for phases that a function makes.

    >>> plain((Phase(trainable="head"), Phase()))
    {'phases': [{'trainable': 'head'}, {}], 'summary': '', 'control': False}
    """
    regime, default = read(value), vars(Phase())
    if callable(regime.phases):
        raise ValueError("its phases are made by a function: register it with mtl.regimes.register instead")
    phases = [{k: v for k, v in vars(p).items() if v != default[k]} for p in regime.phases]
    found = {"phases": phases, "summary": regime.summary, "control": regime.control}
    return found | {name: word for name in _WORDS if (word := getattr(regime, name)) != getattr(Regime, name)}


def without_source(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """Return a regime's phases where loaded weights stand for its source: without the source phases it begins with.

    A model trained elsewhere is a source whose training is over: ``linear_probe`` is then a fresh head on its trunk.

    Args:
      phases: all phases of a regime. One that trains on the source alone keeps them.

    >>> [phase.trainable for phase in without_source(REGIMES["linear_probe"].expand(2))]
    ['head']
    """
    later = next((i for i, phase in enumerate(phases) if phase.tasks != "source"), 0)
    return phases[later:]


def judges(tasks: tuple[str, ...], targets: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tasks whose validation judges a phase, for the best state and for what is tuned.

    They are the study's targets that the phase sees, or else all its tasks. The judgement is the mean score over those
    of them that have a validation label (see ``train.judge``): an error relative to that of predicting the prior, so
    that one network has one state, and no task decides by its unit or by being hard.

    >>> judges(("prime", "even"), ("even",)), judges(("prime", "high"), ("even",))
    (('even',), ('prime', 'high'))
    """
    return tuple(task for task in tasks if task in targets) or tasks


def trainable_patterns(
    trainable: str | tuple[str, ...], tasks: tuple[str, ...], blocks: tuple[str, ...], adapters: str = ""
) -> tuple[str, ...]:
    """Return the patterns on whole paths that a phase's ``trainable`` stands for.

    Args:
      trainable: see ``Phase``.
      tasks: names of the phase's tasks.
      blocks: path prefixes of the backbone's blocks, in order of depth.
      adapters: what a path below a block must match to be trained; empty for all.

    Raises:
      ValueError: for ``last_k`` with a k that the backbone does not have.

    >>> trainable_patterns("last_1", ("even",), ("backbone/a", "backbone/b"))
    ('heads/even/.*', 'backbone/b/.*')
    """
    if isinstance(trainable, tuple):
        return trainable
    heads, below = tuple(f"{exactly(join('heads', name))}/.*" for name in tasks), adapters or ".*"
    if trainable == "all":
        return (*heads, f"backbone/{below}")
    if trainable == "head":
        return heads
    if trainable.startswith("last_"):
        text = trainable.removeprefix("last_")
        if not text.isdecimal() or not 1 <= int(text) <= len(blocks):
            raise ValueError(
                f'trainable = "{trainable}": the backbone has {len(blocks)} blocks: '
                f"last_1 to last_{len(blocks)} are valid"
            )
        if int(text) == len(blocks):  # With what lies in no block, such as the positions of a transformer.
            return (*heads, f"backbone/{below}")
        return (*heads, *(f"{exactly(block)}/{below}" for block in blocks[-int(text) :]))
    return (trainable,)


def fresh_patterns(fresh: tuple[str, ...], targets: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns on whole paths that a phase's ``fresh`` stands for.

    >>> fresh_patterns(("head",), ("even",))
    ('heads/even/.*',)
    """
    heads = tuple(f"{exactly(join('heads', target))}/.*" for target in targets)
    words = {"head": heads, "backbone": ("backbone/.*",)}
    return tuple(pattern for item in fresh for pattern in words.get(item, (item,)))
