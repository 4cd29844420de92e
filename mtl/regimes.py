"""Phases, and the table of regimes: transfer and multi-task learning as one program with different data in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from mtl.tasks import suggest


@dataclasses.dataclass(frozen=True)
class Phase:
    """Which labels are seen, which parameters move, which start fresh, and for how long.

    Attributes:
      tasks: ``source``, ``target``, ``source+target``, or a tuple of task names.
      trainable: ``all``; ``head`` (the heads of the phase's tasks); ``last_k`` (these and the last k blocks of the
        backbone); or a regular expression on whole parameter paths. Heads of other tasks never move.
      fresh: what starts anew: ``head`` (the target's), ``backbone``, or regular expressions on whole paths. A fresh
        parameter takes the replicate's initial value.
      lr: name of a learning rate in the config (``lr``, which is tuned for each regime, or ``source_lr``, which is
        tuned once on source validation), or a number.
      budget: ``source``, ``target`` or ``source+target``: which of the config's budgets it spends, in examples.
      share: the share of that budget.
      total_steps, total_epochs, total_examples: a duration of its own instead of a budget; at most one.
      sampling: how tasks mix, see ``train.sampling``; empty for the config's ``joint_sampling`` (source and target
        together) or ``source_sampling``.
      trunk_mode: ``eval`` or ``train`` for blocks without trainable parameters; empty for the config's.
      select: ``last`` or ``best`` (on validation) goes on; empty for the config's.
    """

    tasks: str | tuple[str, ...] = "target"
    trainable: str = "all"
    fresh: tuple[str, ...] = ()
    lr: str | float = "lr"
    budget: str = "target"
    share: float = 1.0
    total_steps: int = 0
    total_epochs: float = 0.0
    total_examples: int = 0
    sampling: str = ""
    trunk_mode: str = ""
    select: str = ""


@dataclasses.dataclass(frozen=True)
class Regime:
    """A tuple of phases with a name that tables print.

    Attributes:
      phases: the phases, or a function from the number of backbone blocks to the phases.
      summary: one line for people.
      control: whether it is a control, not a contender.
    """

    phases: tuple[Phase, ...] | Callable[[int], tuple[Phase, ...]]
    summary: str
    control: bool = False

    def expand(self, blocks: int) -> tuple[Phase, ...]:
        """Return the phases for a backbone of so many blocks."""
        return self.phases(blocks) if callable(self.phases) else self.phases


_SOURCE = Phase(tasks="source", lr="source_lr", budget="source")


def _gradual(blocks: int) -> tuple[Phase, ...]:
    """Unfreeze from the top: the head, then one more block a phase (Howard & Ruder 2018, arXiv:1801.06146)."""
    share = 1.0 / (blocks + 1)
    first = Phase(trainable="head", fresh=("head",), share=share)
    return (_SOURCE, first, *(Phase(trainable=f"last_{k}", share=share) for k in range(1, blocks + 1)))


#: The regimes by name. All that use the source see the same number of examples: source budget + target budget.
REGIMES: dict[str, Regime] = {
    "scratch": Regime((Phase(),), "target only, from random weights"),
    "random_probe": Regime(
        (Phase(trainable="head", fresh=("head",)),), "a head on a trunk that was never trained", control=True
    ),
    "linear_probe": Regime(
        (_SOURCE, Phase(trainable="head", fresh=("head",))), "source, then a fresh head on the frozen trunk"
    ),
    "finetune": Regime((_SOURCE, Phase(fresh=("head",))), "source, then everything on the target"),
    "lp_ft": Regime(
        (_SOURCE, Phase(trainable="head", fresh=("head",), share=0.5), Phase(share=0.5)),
        "source, then the head, then everything (Kumar et al. 2022, arXiv:2202.10054)",
    ),
    "gradual": Regime(_gradual, "source, then the head, then one more block at a time from the top"),
    "multitask": Regime(
        (Phase(tasks="source+target", budget="source+target"),),
        "source and target together, from random weights",
    ),
    "multitask_finetune": Regime(
        (Phase(tasks="source+target", lr="source_lr", budget="source"), Phase()),
        "source and target together, then the target alone",
    ),
    "scratch_matched": Regime(
        (Phase(budget="source+target"),),
        "target only, for as many examples as the costliest regime sees",
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
    known = REGIMES.get(name)
    if known is not None and known != regime:
        raise ValueError(f'regime "{name}" is already registered; choose another name')
    REGIMES[name] = regime


def get(name: str) -> Regime:
    """Return the regime of that name.

    Raises:
      ValueError: if there is none, naming the valid ones.
    """
    if name not in REGIMES:
        raise ValueError(f'regime = "{name}": {suggest(name, REGIMES)}')
    return REGIMES[name]


def trainable_patterns(trainable: str, tasks: tuple[str, ...], blocks: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns on whole paths that a phase's ``trainable`` stands for.

    Args:
      trainable: see ``Phase``.
      tasks: names of the phase's tasks.
      blocks: path prefixes of the backbone's blocks, in order of depth.

    Raises:
      ValueError: for ``last_k`` with a k that the backbone does not have.

    >>> trainable_patterns("last_1", ("even",), ("backbone/a", "backbone/b"))
    ('heads/even/.*', 'backbone/b/.*')
    """
    heads = tuple(f"heads/{name}/.*" for name in tasks)
    if trainable == "all":
        return (*heads, "backbone/.*")
    if trainable == "head":
        return heads
    if trainable.startswith("last_"):
        text = trainable.removeprefix("last_")
        if not text.isdigit() or not 1 <= int(text) <= len(blocks):
            raise ValueError(
                f'trainable = "{trainable}": the backbone has {len(blocks)} blocks: '
                f"last_1 to last_{len(blocks)} are valid"
            )
        return (*heads, *(f"{block}/.*" for block in blocks[-int(text) :]))
    return (trainable,)


def fresh_patterns(fresh: tuple[str, ...], target: str) -> tuple[str, ...]:
    """Return the patterns on whole paths that a phase's ``fresh`` stands for.

    >>> fresh_patterns(("head",), "even")
    ('heads/even/.*',)
    """
    words = {"head": f"heads/{target}/.*", "backbone": "backbone/.*"}
    return tuple(words.get(item, item) for item in fresh)
