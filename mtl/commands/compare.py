"""``mtl compare``: from a table to what to do, how sure that is, and a trained model."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.commands.usage import UsageError, add_data_arguments

if TYPE_CHECKING:
    import pandas

    from mtl.commands.proposal import Proposal
    from mtl.commands.waves import Study
    from mtl.host.spawn import WorkerHandle
    from mtl.sweep.replicates import Replicates

_EPILOG = """\
examples:
  mtl compare pets.csv --target ill                             is a network better than models without one?
  mtl compare pets.csv --target ill --also breed,weight         does it help to learn these too?
  mtl compare pets.csv --target ill ignore=id missing=?         options of the reader, as in data.options
  mtl compare tox21 --target SR-p53 --also SR-MMP --budget 30m  a name of `mtl data list`

It looks at the test set at most four times, spends an error rate of 5 % over these looks, and stops when it is settled
what to do, when no planned replicates would settle it, or when the time is spent; the same command goes on.
Exit codes: 0 done, 1 some trials failed, 2 the command or the data are wrong, 130 or 143 interrupted.
"""


def add_compare_command(commands: Any) -> None:
    """Add ``compare`` to the commands of the command line."""
    what = "Say what to do with a table: transfer, train jointly or neither, and how sure that is."
    shape: dict[str, Any] = {"epilog": _EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
    compare = commands.add_parser("compare", help=what, description=what, **shape)
    add_data_arguments(compare)
    compare.add_argument("--budget", default="10m", metavar="TIME", help="with s, m or h (default: 10m)")
    compare.add_argument("--workdir", metavar="DIR", help="where results go (default: runs/NAME)")
    compare.add_argument("--jobs", type=int, metavar="N", help="worker processes (default: one a core; 0: none)")


def plan_text(proposal: Proposal, budget: float) -> str:
    """Return what is going to be compared, and how, in a few lines."""
    from mtl.commands.display import clock_text
    from mtl.commands.proposal import KEPT, LOOKS, RATES
    from mtl.data.summary import summary

    p, lines = proposal, [summary(proposal.table)]
    columns = p.table.columns if isinstance(p.table.columns, tuple) else ()
    if columns:
        shown = ", ".join(columns[:8]) + (f" and {len(columns) - 8:,} more" if len(columns) > 8 else "")
        lines.append(f"inputs: {shown}")
    if p.source:
        lines.append(f"question: {p.question}")
    else:
        lines.append(
            "There is one task and there are no trained weights, so there is nothing to transfer from: a network "
            f"from scratch is compared with {' and '.join(p.references) or 'nothing else'}."
        )
    model, options = p.model
    lines += [
        f"regimes: {', '.join(p.regimes)}",
        f"rows: {p.target_size:,} to learn from, {p.validated:,} of which validate, and {p.test_size:,} to test on"
        + (f"; {p.source_size:,} of the other tasks" if p.source_size else ""),
        f"network: {model} {options or ''}, {p.steps(p.target_size) * (1 + bool(p.source)):,} updates at most; "
        f"{len(RATES)} learning rates, of which {KEPT} go on, by validation",
        f"looks at the test set: after {', '.join(map(str, LOOKS))} replicates, unless settled before; each spends "
        f"{5 / len(LOOKS):g} % of the error rate of 5 %",
        f"time: at most {clock_text(budget)}",
    ]
    return "\n".join(lines)


def compare_command(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Run ``mtl compare …`` and return its exit code.

    Raises:
      UsageError: for a command that cannot be.
      DataError: for data that cannot be used.
    """
    from mtl.commands.given import proposal_of, seconds_of
    from mtl.host.spawn import default_jobs, started

    budget = seconds_of(arguments.budget)
    jobs = default_jobs() if arguments.jobs is None else arguments.jobs
    if jobs < 0:
        raise UsageError(f"--jobs={jobs}: must be at least 0 (0: in this process)")
    proposal = proposal_of(arguments)
    with started(jobs) as hands:  # They import JAX while this process does.
        return _compare(proposal, budget, arguments, jobs, hands)


def _compare(
    proposal: Proposal, budget: float, arguments: argparse.Namespace, jobs: int, hands: list[WorkerHandle]
) -> int:
    from mtl.commands.display import Terminal, error_line
    from mtl.commands.read import print_study
    from mtl.commands.start import in_this_process
    from mtl.commands.waves import ENDED, SWEEP, Clock, begin, follow, models_of, regime_of
    from mtl.sweep.snapshots import Interrupt
    from mtl.sweep.store import NoResultError
    from mtl.train.loop import Stopped

    if not jobs:
        in_this_process(arguments.own)
    study = begin(proposal, arguments.workdir or "", Terminal())
    study.display.say(plan_text(proposal, budget))
    with Interrupt().listening() as interrupt, Clock(budget, interrupt) as clock:
        try:
            follow(study, clock, interrupt, jobs, hands)
        except Stopped:
            error_line("interrupted; what was done is kept, run the same command again for the rest")
            return 128 + interrupt.number
        except NoResultError as error:
            error_line(str(error))
            return 1
    if study.analysis is not None:
        print_study(study.workdir, [SWEEP])
    print(f"config  {study.file}")
    if models := models_of(study):
        print(f"model   {models[0]}{f' and {len(models) - 1} more replicates' if len(models) > 1 else ''}")
        print(f"predict mtl predict {study.workdir.path} new.csv --regime={regime_of(study)} -o out.csv")
    print(f"ended   {ENDED[study.ended]}")
    print(f"verdict {study.verdict}")
    for reason in study.failed[:3]:
        error_line(f"a trial failed: {reason}")
    return 1 if study.failed else 0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a comparison came to.

    Attributes:
      table: a row a regime: its metric, and its gain over the baseline with interval, corrected p and claim.
      verdict: what to do, in one sentence.
      ended: why it ended, in words.
      path: the work directory, with ``report.html``, and ``study.py``, the config that gives the same.
      trials: the directories of the networks of what is advised, one a replicate; see ``mtl.load``. Where a model of
        scikit-learn is advised, which is not kept, they are the best network's.
      task: what they predict.
    """

    table: pandas.DataFrame
    verdict: str
    ended: str
    path: Path
    trials: tuple[Path, ...]
    task: str

    @functools.cached_property
    def model(self) -> Replicates:
        """The networks of what is advised: ``model.predict(frame)`` is their mean and its spread over replicates.

        Raises:
          ValueError: if there are none, as the time was spent before the first look.
        """
        from mtl.sweep.replicates import load_replicates

        if not self.trials:
            raise ValueError(f"{self.path}: there is no model yet: {self.verdict}")
        return load_replicates({self.task: self.trials}, self.verdict)

    def __repr__(self) -> str:
        """Return the verdict and where the rest is."""
        return f"{self.verdict}\n{self.path / 'report.html'}"


def compare(
    data: str | Path | pandas.DataFrame,
    target: str,
    also: str | Sequence[str] = (),
    budget: str = "10m",
    *,
    name: str = "",
    workdir: str | Path = "",
    jobs: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> Comparison:
    """Say what to do with a table: transfer, train jointly or neither, and how sure that is.

    As ``mtl compare``: regimes are compared in waves of replicates, with at most four looks at the test set over which
    the error rate of 5 % is spent in equal parts, until it is settled what to do or the time is spent. The same call
    goes on.

    Args:
      data: a file, a name of ``mtl data list``, or a DataFrame, which is kept as Parquet in the work directory.
      target: the column to predict; ``ill:binary`` says its kind too.
      also: columns of other tasks; all that is left is input.
      budget: the most time that it may train, with s, m or h.
      name: of the study; by default that of the file and the target.
      workdir: where results are kept; ``runs/NAME`` by default.
      jobs: worker processes; one a core by default, 0 for none.
      quiet: whether nothing is shown while it runs.
      **options: of the reader, such as ``ignore="id"``.

    Raises:
      UsageError, DataError: for what cannot be; before anything runs.
      StoreError, HeldError, FileError: if the work directory cannot be used, or another process writes in it.
      NoResultError: if all trials failed.
      KeyboardInterrupt: if it was interrupted; what was done is kept.
    """
    from mtl.commands.display import Terminal
    from mtl.commands.given import given, seconds_of
    from mtl.commands.read import command
    from mtl.commands.run import interruptible
    from mtl.commands.waves import ENDED, SWEEP, Clock, begin, follow, models_of
    from mtl.host.spawn import default_jobs
    from mtl.report.publish import analyses_of, publish
    from mtl.sweep.launch import Silent

    seconds = seconds_of(budget)
    if not isinstance(data, str | Path):
        name = name or f"frame_{target.partition(':')[0]}"
        workdir = workdir or Path("runs") / name
        data = _kept(data, Path(workdir))
    proposal = given(str(data), target, also, name, options)
    study = begin(proposal, workdir, Silent() if quiet else Terminal())
    study.display.say(plan_text(proposal, seconds))
    with interruptible() as interrupt, Clock(seconds, interrupt) as clock:
        follow(study, clock, interrupt, default_jobs() if jobs is None else jobs)
    if study.analysis is not None:
        publish(study.workdir, analyses_of(study.workdir, [SWEEP]), command())
    table, trials, path = _table(study), tuple(models_of(study)), study.workdir.path
    return Comparison(table, study.verdict, ENDED[study.ended], path, trials, proposal.target.name)


def _kept(frame: pandas.DataFrame, folder: Path) -> Path:
    """Write a frame into a work directory, and return where."""
    import io

    from mtl.data.extras import needs
    from mtl.host.files import write_atomically

    if not hasattr(frame, "to_parquet"):
        raise UsageError(f"data: a {type(frame).__name__}: must be a DataFrame, a file, or a name of data")
    needs("pyarrow", "parquet", "a DataFrame")
    content, file = io.BytesIO(), folder / "frame.parquet"
    try:
        frame.to_parquet(content, index=False)
    except (ValueError, TypeError) as error:  # pyarrow's own errors are both.
        raise UsageError(f"data: the DataFrame cannot be kept as Parquet: {str(error).splitlines()[0]}") from None
    folder.mkdir(parents=True, exist_ok=True)
    if not file.is_file() or file.read_bytes() != content.getvalue():
        write_atomically(file, content.getvalue(), durable=False)
    return file.absolute()


def _table(study: Study) -> pandas.DataFrame:
    """Return a row a regime, at the largest size."""
    import pandas as pd

    fields = ("mean", "low", "high", "gain", "gain_low", "gain_high", "p_holm", "claim", "replicates")
    rows: list[Mapping[str, Any]] = []
    if (analysis := study.analysis) is not None:
        size = analysis.scores.sizes[-1]
        cells = {regime: analysis.cells[regime][size] for regime in analysis.scores.regimes}
        rows = [{"regime": r, **{field: getattr(cell, field) for field in fields}} for r, cell in cells.items()]
    return pd.DataFrame(rows, columns=["regime", *fields]).set_index("regime")
