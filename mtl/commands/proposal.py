"""What `mtl init` and `mtl compare` propose for a table: tasks, split, network, training, regimes."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtl.config.reference import MOST_INPUTS
from mtl.data import Asked, DataError, Table
from mtl.data.problems import Problems
from mtl.data.readers.cells import spelled
from mtl.data.shared import shared_split
from mtl.data.splits import labelled_rows, transfer_split
from mtl.data.streamed import Streamed
from mtl.tasks import Task, suggest

#: Learning rates that are tried, and how many of them go on after the first look.
RATES, KEPT = (1e-3, 3e-3, 1e-2), 2

#: Replicates at each look at the test set, if the study is not settled before.
LOOKS = (5, 10, 20, 40)

#: Of the labelled rows these are for testing, at most so many; and of the rest these for validation.
TEST_SHARE, MOST_TESTED, VAL_SHARE = 0.3, 5000, 0.2

#: Rows with the labels of several tasks are drawn so that every task has its share: of more it takes long.
MOST_SHARED = 20_000

#: Contenders, where there are tasks to transfer from.
CONTENDERS = ("linear_probe", "finetune", "multitask", "multitask_finetune")

#: Numbers (rows × inputs) up to which a reference takes seconds, and not minutes, with its cross-validation.
MOST_NUMBERS = {"logistic_regression": 2_000_000, "forest": 200_000}

#: Of fewer rows one replicate may have the labels that it needs where another has not.
FEW = 300

#: A binary task whose rarer class has a smaller share is judged by the area under its ROC curve.
RARE = 0.2


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A study of a table that answers whether to train with other tasks, each choice in proportion to the table.

    Attributes:
      name: of the study.
      data: ``data.name`` and ``data.options`` of its config.
      table: the data.
      target: the task that is asked about.
      source: the other tasks, to transfer from or to train jointly with.
      rows: ``shared`` or ``disjoint``, as of ``data.rows``.
      test_size, target_size, target_pool, source_size, source_val_size: rows, as of ``data``.
      val_fraction: as of ``data``.
    """

    name: str
    data: tuple[str, Mapping[str, Any]]
    table: Table
    target: Task
    source: tuple[str, ...]
    rows: str
    test_size: int
    target_size: int
    target_pool: int
    source_size: int
    source_val_size: int
    val_fraction: float

    @property
    def validated(self) -> int:
        """Rows among the n that validate."""
        return int(np.floor(self.val_fraction * self.target_size + 0.5))

    @property
    def batch(self) -> int:
        """Rows of a batch."""
        return 32 if self.target_size < 2000 else 128

    def steps(self, rows: int) -> int:
        """Updates at most of a phase on so many rows: twenty times through them, within bounds."""
        return int(np.clip(round(20 * rows / self.batch), 200, 2000))

    @functools.cached_property
    def model(self) -> tuple[str, dict[str, Any]]:
        """The name and the options of the network."""
        shape = self.table.shape
        assert isinstance(shape, tuple)  # Several arrays are refused by ``propose``.
        if self.table.vocabulary:
            return "embedding", {}
        if len(shape) == 3:
            return ("cnn", {}) if min(shape[:2]) <= 48 else ("resnet", {})
        wide = int(np.prod(shape)) > 512
        return "mlp", {"hidden": (256,), "dropout": 0.5} if wide else {"hidden": (64, 64)}

    @functools.cached_property
    def references(self) -> tuple[str, ...]:
        """The models of scikit-learn that it is compared with."""
        x = self.table.x
        if isinstance(x, Streamed | Mapping) or self.table.vocabulary or self.target.shape or x[:1].size > MOST_INPUTS:
            return ()
        numbers = self.target_size * x[:1].size
        return tuple(name for name, most in MOST_NUMBERS.items() if numbers <= most)

    @property
    def regimes(self) -> tuple[str, ...]:
        """The rows of the table."""
        return ("scratch", *(CONTENDERS if self.source else ()), *self.references)

    @property
    def metric(self) -> str:
        """The metric, if it is not the default of the task's kind."""
        if self.target.kind != "binary":
            return ""
        share = float(self.table.present_labels(self.target.name, self.table.mask[self.target.name]).mean())
        return "auroc" if min(share, 1 - share) < RARE else ""

    @property
    def question(self) -> str:
        """What the study asks."""
        if not self.source:
            return f"Is a network better than other models at predicting {self.target.name}?"
        return f"Does it help to predict {self.target.name} to train on {_few(self.source)} too?"


def propose(
    table: Table, data: tuple[str, Mapping[str, Any]], target: str, also: Sequence[str] = (), name: str = ""
) -> Proposal:
    """Return the proposal for a table.

    Args:
      table: the data.
      data: the name and the options that a config loads it by.
      target: the task that is asked about.
      also: other tasks.
      name: of the study; that of the table by default.

    Raises:
      DataError: one sentence for everything that cannot be.
    """
    known, problems = {t.name: t for t in table.tasks}, Problems()
    for option, given in (("target", [target]), ("also", also)):
        for task in given:
            if task not in known:
                problems.add(f'{option} = "{task}": is no task of {table.name}: {suggest(task, known)}')
    for task in sorted({t for t in also if t == target or list(also).count(t) > 1}):
        problems.add(f'also: "{task}" {"is the target too" if task == target else "is there twice"}: name it once')
    if isinstance(table.x, Mapping):
        problems.add(f"inputs are several arrays, {', '.join(table.x)}: they need a model of your own, see the README")
    problems.stop()
    for task in dict.fromkeys((target, *also)):
        _check_labels(table, known[task], problems)
    problems.stop(f"data {table.name}")
    own, other = table.mask[target], labelled_rows(table, also)
    rows = "shared" if also and (other & ~own).sum() <= own.sum() else "disjoint"
    total = int((own | other).sum() if rows == "shared" else own.sum())
    apart = int((other & ~own).sum()) if also and rows == "disjoint" else 0
    tested = min(max(round(TEST_SHARE * total), 1), MOST_TESTED)
    first = Proposal(
        _identifier(name or table.name), data, table, known[target], tuple(also), rows, tested, total - tested,
        total - tested, apart, round(0.2 * apart), VAL_SHARE,
    )  # fmt: skip
    why = ""
    for proposal in _smaller(first, total):
        try:
            _split(proposal)
        except ValueError as error:
            why = why or str(error)
        else:
            return proposal
    raise DataError(f"data {table.name}: no split of {total:,} labelled rows can be made: {why}")


def _smaller(first: Proposal, total: int) -> Iterator[Proposal]:
    """Yield a proposal, and then ones with larger test sets (of rare classes) and fewer rows (of large groups)."""
    for times in (1.0, 1.25, 1.5, 1.75):
        tested = min(round(times * first.test_size), total // 2)
        left = min(total - tested, MOST_SHARED if first.rows == "shared" else total)
        for share in (1.0,) if first.table.groups is None else (1.0, 0.9, 0.8, 0.7, 0.6, 0.5):
            apart, pool = int(share * first.source_size), int(share * left)
            # Whole groups are not drawn to the row: some rows of the pool are used by no replicate.
            yield dataclasses.replace(
                first,
                test_size=tested,
                target_size=pool if first.table.groups is None else int(share * pool),
                target_pool=pool,
                source_size=apart,
                source_val_size=round(0.2 * apart),
            )


def _split(proposal: Proposal) -> None:
    """Draw splits: whether the data can give these sizes is for them to say; of few rows each replicate's."""
    first = Asked(
        source=proposal.source,
        targets=(proposal.target.name,),
        rows="shared" if proposal.rows == "shared" else "disjoint",
        target_size=proposal.target_size,
        target_pool=proposal.target_pool,
        test_size=proposal.test_size,
        source_size=proposal.source_size,
        source_val_size=proposal.source_val_size,
        val_fraction=proposal.val_fraction,
    )
    draw = shared_split if proposal.rows == "shared" else transfer_split
    for seed in range(LOOKS[-1] if proposal.target_size < FEW else 1):
        split = draw(proposal.table, dataclasses.replace(first, seed=seed))
        for task, train in split.train.items():
            if not (train.any() and split.val[task].any()):
                raise ValueError(f'task "{task}" would have no label to train or to validate with')
            tested = split.labels[task][split.test[task]]
            if len(tested) and proposal.table.task(task).metric == "r2" and np.ptp(tested) == 0:
                raise ValueError(f'all test labels of "{task}" would be the same')


def _check_labels(table: Table, task: Task, problems: Problems) -> None:
    """Note what no split could mend: too few labels, of a class or at all, or labels that are all the same."""
    labels = table.present_labels(task.name, table.mask[task.name])
    if len(labels) < 6:
        problems.add(f'"{task.name}": has {len(labels)} labels: must have 6 or more, to learn, to validate and to test')
    elif not task.classes:
        if np.ptp(labels) == 0:
            problems.add(f'"{task.name}": every label is {labels[0]:g}: there is nothing to predict')
    elif not task.shape:
        names = table.classes.get(task.name, ()) or tuple(map(str, range(task.classes)))
        counts = np.bincount(labels.astype(int), minlength=task.classes)
        if few := [f"{names[c]} ({n})" for c, n in enumerate(counts) if n < 2]:
            problems.add(
                f'"{task.name}": classes with fewer than 2 labels: {", ".join(few[:8])}{", …" * (len(few) > 8)}: each '
                "must have one to learn from and one to test on; leave such rows out, or join classes"
            )


def _identifier(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", spelled(name) or "study").strip("_") or "study"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def config_text(proposal: Proposal, made_by: str, looks: int, sweep: str, body: Sequence[str]) -> str:
    """Return a proposal as a config file, with a comment on each choice.

    Args:
      proposal: what is proposed.
      made_by: a sentence on who wrote the file, and how it is used.
      looks: planned looks at the test set.
      sweep: the name of its sweep.
      body: the lines of the function of the sweep.
    """
    p = proposal
    name, options = p.data
    counted = "rows with a label" if p.rows == "shared" else f"labels of {p.target.name}"
    lines = [
        f"c.name = {p.name!r}",
        f"c.data.name = {name!r}",
        f"c.data.options = {_literal(options)}",
        f"c.data.target = {p.target.name!r}  # {p.target.kind}",
        f"c.data.source = {p.source!r}  # {'learned before it, or with it' if p.source else 'there is nothing else'}",
    ]
    if p.source:
        shared = "a row comes with the labels of all tasks"
        own = "the other tasks have rows of their own, those without a label of the target"
        lines.append(f"c.data.rows = {p.rows!r}  # {shared if p.rows == 'shared' else own}")
    lines += [
        f"c.data.test_size = {p.test_size}  # {counted}: drawn once, never learned from",
        f"c.data.target_size, c.data.target_pool = {p.target_size}, {p.target_pool}  # n, of so many others",
        f"c.data.val_fraction = {p.val_fraction!r}  # {p.validated} of the n choose rates and when to stop",
    ]
    if p.source_size:
        lines += [
            f"c.data.source_size, c.data.source_val_size = {p.source_size}, {p.source_val_size}  # without the target"
        ]
    if p.metric:
        lines.append(f"c.metric = {p.metric!r}  # as one class is rare")
    model, chosen = p.model
    source = p.steps(p.source_size - p.source_val_size or p.target_size) if p.source else 0
    lines += [
        f"c.model.name, c.model.options = {model!r}, {_literal(chosen)}  # `mtl config model.options`: what it takes",
        f"c.batch_size = {p.batch}",
        f"c.target.total_steps = {p.steps(p.target_size)}  # updates at most: validation ends training early",
    ]
    if p.source:
        lines += [
            f"c.source.total_steps = {source}  # every regime has those of both, scratch too",
            f"c.tune.source_lr = {RATES!r}  # chosen once, by the source's validation",
            f"c.tune.seeds = {tuple(range(LOOKS[0]))!r}  # in these replicates",
        ]
    lines += [
        "c.report.margin = 0.02  # a difference that matters is greater, in the metric's own unit",
        f"c.report.looks = {looks}  # at the test set: the error rate of 5 % is spent over them",
        f"c.report.notes = ({_NOTE!r},)",
    ]
    used = [word for word in ("chain", "product", "sweep") if f"{word}(" in "".join(body)]
    return "\n".join(
        [
            f'"""{_doc(p.question)} {made_by}"""',
            "",
            "from mtl.config import default",
            f"from mtl.sweep import {', '.join(used)}",
            "",
            "",
            "def get_config():",
            "    c = default()",
            *(f"    {line}" for line in lines),
            "    return c",
            "",
            "",
            f"def sweep_{sweep}():",
            f'    """{_doc(p.question)}"""',
            *(f"    {line}" for line in body),
            "",
        ]
    )


_NOTE = "All replicates learn from the rows beside one test set: what is said holds for these labels."


def _literal(value: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{k!r}: {v!r}" for k, v in value.items()) + "}"


def _doc(text: str) -> str:
    """Return a text as it can stand in a docstring."""
    return text.replace("\\", "\\\\").replace('"', "'")


def first_wave(proposal: Proposal, replicates: int) -> list[str]:
    """Return the body of a sweep that tries each rate of each regime in each replicate."""
    return [
        f"regimes = {proposal.regimes!r}",
        f'return product(sweep("regime", regimes), sweep("seed", range({replicates})), sweep("lr", {RATES!r}))',
    ]


def later_wave(proposal: Proposal, replicates: int, kept: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the body of a sweep that goes on with the rates that were kept of each regime.

    Args:
      proposal: what is proposed.
      replicates: all that there are to be, those of the first look among them.
      kept: by regime; references have no rate.
    """
    return [
        f"regimes = {proposal.regimes!r}",
        f'first = product(sweep("regime", regimes), sweep("seed", range({LOOKS[0]})), sweep("lr", {RATES!r}))',
        "# The best rates of each regime by mean validation over these replicates.",
        f"kept = {_literal(dict(kept))}",
        "pairs = [{'regime': regime, 'lr': rate} for regime in regimes for rate in kept[regime]]",
        f'return chain(first, product(pairs, sweep("seed", range({LOOKS[0]}, {replicates}))))',
    ]
