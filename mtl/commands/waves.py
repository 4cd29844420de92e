"""A comparison that is looked at several times: run wave by wave until it is settled, or the time is spent."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.commands.display import clock_text
from mtl.commands.proposal import KEPT, LOOKS, RATES, Proposal, config_text, first_wave, later_wave
from mtl.commands.read import import_for_tables
from mtl.commands.usage import UsageError
from mtl.config import flatten, load
from mtl.host.files import write_atomically
from mtl.regimes import REFERENCES
from mtl.report.analysis import Analysis
from mtl.report.looks import OPEN, advised, conclusion, state
from mtl.report.publish import analyses_of
from mtl.report.text import metric_text, number_text, row_text
from mtl.sweep import sweeps_of
from mtl.sweep.cache import make_cache
from mtl.sweep.chosen import candidates, choose, tuned
from mtl.sweep.expand import Changes
from mtl.sweep.launch import Display, Summary, launch
from mtl.sweep.lease import Lease
from mtl.sweep.snapshots import Interrupt
from mtl.sweep.store import Workdir
from mtl.sweep.study import check_base
from mtl.train.loop import Stopped

if TYPE_CHECKING:
    import contextlib

    from mtl.host.spawn import WorkerHandle

#: The sweep's name.
SWEEP = "compare"

_MADE = "Written by `mtl compare`, which writes it anew: copy it before you change it."

#: Why a study ended, in words.
ENDED = {
    "settled": "it is settled what to do",
    "futile": "no replicates that are planned would settle more",
    "open": "all looks that were planned are taken",
    "time": "the time is spent; the same command goes on",
}


class Clock:
    """The time of a comparison: once it is spent the process is asked to stop, as by a signal.

    Attributes:
      spent: whether it is.
    """

    def __init__(self, seconds: float, interrupt: Interrupt) -> None:
        """Begin."""
        self.end, self.spent, self._interrupt = time.monotonic() + seconds, False, interrupt
        self._timer = threading.Timer(seconds, self._ring)
        self._timer.daemon = True

    def __enter__(self) -> Clock:
        """Count."""
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ask nobody any more."""
        self._timer.cancel()

    def _ring(self) -> None:
        self.spent = not self._interrupt.number
        self._interrupt.ask()

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(self.end - time.monotonic(), 0.0)


@dataclasses.dataclass
class Study:
    """A comparison in its work directory, look by look.

    Attributes:
      proposal: what is compared.
      workdir: where.
      display: where it is told how far it is.
      analysis: of the last look; nothing before the first.
      taken: looks that were taken.
      ended: why it ended, a key of ``ENDED``; empty while it has not.
      failed: why trials failed.
    """

    proposal: Proposal
    workdir: Workdir
    display: Display
    analysis: Analysis | None = None
    taken: int = 0
    ended: str = ""
    failed: list[str] = dataclasses.field(default_factory=list)

    @property
    def file(self) -> Path:
        """The config file that gives the same results."""
        return self.workdir.inside("study.py")

    @property
    def verdict(self) -> str:
        """What to do, in one sentence."""
        p = self.proposal
        if self.analysis is None:
            return "Cannot tell: the time was spent before the first look; the same command goes on."
        return conclusion(self.analysis, p.target_size + p.test_size, LOOKS[-1])

    def write(self, look: int) -> None:
        """Write the config file of the replicates of a look, the first of which is 0."""
        body = first_wave(self.proposal, LOOKS[0])
        if look:
            body = later_wave(self.proposal, LOOKS[look], self.kept())
        text = config_text(self.proposal, _MADE, len(LOOKS), SWEEP, body)
        self.workdir.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.file, text.encode(), durable=False)

    def entries(self) -> dict[str, list[Changes]]:
        """Return what the config file's sweep changes for each trial."""
        return {SWEEP: sweeps_of(load(str(self.file))[1])[SWEEP]()}

    def kept(self) -> dict[str, tuple[float, ...]]:
        """Return the rates that go on, the best of each regime by its mean validation score at the first look."""
        scores: dict[str, dict[float, list[float]]] = {}
        for (regime, _, seed, _), found in candidates(self.workdir, self.workdir.study()["sweeps"][SWEEP]).items():
            for trial, result in found if seed < LOOKS[0] and regime not in REFERENCES else ():
                value = result["val_score"] if result is not None and result["status"] == "done" else None
                of = scores.setdefault(regime, {}).setdefault(float(trial["changes"]["lr"]), [])
                of.append(math.inf if value is None else value)
        best = {
            regime: tuple(sorted(sorted(rates, key=lambda r, of=rates: (sum(of[r]), r))[:KEPT]))  # type: ignore[misc]
            for regime, rates in scores.items()
        }
        return {regime: best.get(regime, RATES[:1]) for regime in self.proposal.regimes}

    def look(self) -> str:
        """Look at the test set once, say what is seen, and return whether it is settled (see `mtl.report.looks`)."""
        (found,) = analyses_of(self.workdir, [SWEEP])
        assert isinstance(found, Analysis)  # Of one target.
        self.analysis = found
        self.taken += 1
        do = advised(self.analysis)
        cell = self.analysis.cells[do][self.analysis.scores.sizes[-1]] if do else None
        self.display.say(
            f"look {self.taken} of at most {len(LOOKS)}, after {LOOKS[self.taken - 1]} replicates: "
            + (f"so far {row_text(do)} ({_value(self.analysis, cell.mean)})" if cell else "nothing was measured")
        )
        return state(self.analysis, LOOKS[-1])


def begin(proposal: Proposal, workdir: str | Path, display: Display) -> Study:
    """Return a comparison in its work directory, ``runs/NAME`` by default.

    Raises:
      HeldError: if another process writes there.
      UsageError: if the directory is of another study.
    """
    study = Study(proposal, Workdir(workdir or Path("runs") / proposal.name), display)
    Lease(study.workdir.path).look()
    check_directory(study)
    if slow := make_cache():
        display.say(f"warning: {slow}")
    return study


def follow(
    study: Study, clock: Clock, interrupt: Interrupt, jobs: int, hands: list[WorkerHandle] | None = None
) -> None:
    """Run a comparison look by look until it ends.

    Raises:
      Stopped: if it was interrupted.
      ConfigError, StoreError, HeldError, FileError: as `mtl.sweep.launch.launch`.
    """
    study.write(0)
    base = flatten(load(str(study.file))[0])
    check_base(base)
    begun = time.monotonic()

    def further(done: Sequence[Summary]) -> Mapping[str, list[Changes]]:
        nonlocal begun
        ran, spent = done[0].ran, time.monotonic() - begun
        study.failed = list(done[0].failed.values())
        found = study.look()
        if found != OPEN or study.taken == len(LOOKS):
            study.ended = found
            return {}
        more = (LOOKS[study.taken] - LOOKS[study.taken - 1]) * len(study.proposal.regimes) * KEPT
        if ran:
            study.display.say(f"the next look is about {clock_text(spent / ran * more)} of training away")
            if spent / ran * more > clock.left:
                study.ended = "time"
                return {}
        study.write(study.taken)
        begun = time.monotonic()
        return study.entries()

    def run(stop: Interrupt, then: Callable[[Sequence[Summary]], Mapping[str, list[Changes]]], processes: int) -> None:
        launch(
            base, study.entries(), study.workdir, jobs=processes, config_file=str(study.file.absolute()),
            display=_Told(study, clock), questions={SWEEP: study.proposal.question}, interrupt=stop,
            hands=hands, meanwhile=import_for_tables, further=then,
        )  # fmt: skip

    try:
        run(interrupt, further, jobs)
    except Stopped:
        if not clock.spent:
            raise
        study.ended = "time"
        if study.taken:  # What was begun is not looked at: the sweep is again that of the last look.
            study.write(study.taken - 1)
            run(type(interrupt)(), lambda done: {}, 0)


def check_directory(study: Study) -> None:
    """Check that a work directory is that of the same comparison, or is to be one.

    Raises:
      UsageError: if it is not.
    """
    if study.file.exists() and _MADE not in study.file.read_text():
        raise UsageError(f"{study.file}: is not of `mtl compare`: choose another work directory")
    if not study.workdir.study_file.is_file():
        return
    p, known = study.proposal, study.workdir.study()["sweeps"].get(SWEEP, {}).get("base", {})
    if not known:
        return
    there = {"target": list(known.get("data.targets") or [known["data.target"]]), "also": list(known["data.source"])}
    for word, value in (("target", [p.target.name]), ("also", list(p.source))):
        if there[word] != value:
            raise UsageError(
                f"{word} = {', '.join(value) or 'nothing'}: {study.workdir.path} is of {word} = "
                f"{', '.join(there[word]) or 'nothing'}: choose another name or work directory"
            )


class _Told:
    """A display that says with what is being run how far the whole is, and what is best so far."""

    def __init__(self, study: Study, clock: Clock) -> None:
        self.study, self.clock = study, clock

    def say(self, text: str) -> None:
        self.study.display.say(text)

    def meter(self, title: str, work: float, trials: int) -> contextlib.AbstractContextManager[Any]:
        at, analysis = self.study.taken, self.study.analysis
        best = f", so far {row_text(advised(analysis))}" if analysis is not None and advised(analysis) else ""
        wave = f"{LOOKS[at]} replicates{best}, at most {clock_text(self.clock.left)} left in all"
        return self.study.display.meter(f"{title.removeprefix(f'{SWEEP}: ')} ({wave})", work, trials)


def _value(analysis: Analysis, mean: float) -> str:
    scores = analysis.scores
    return f"{metric_text(scores.metric, scores.unit)} {number_text(mean, scores.unit)}"


def models_of(study: Study) -> list[Path]:
    """Return the directories of the trained models of what is advised, one a replicate: see ``regime_of``."""
    if not (do := regime_of(study)):
        return []
    entry = study.workdir.study()["sweeps"][SWEEP]
    fields = tuned(entry)
    picked = [choose(found, fields) for (regime, *_), found in candidates(study.workdir, entry).items() if regime == do]
    return [study.workdir.trial(pick[0]["hash"]) for pick in picked if pick is not None]


def regime_of(study: Study) -> str:
    """Return the regime whose networks predict: what is advised; nothing before the first look.

    Where a model of scikit-learn is advised, which is not kept, it is that of the best network.
    """
    if (analysis := study.analysis) is None:
        return ""
    scores, do = analysis.scores, advised(analysis)
    size, sign = scores.sizes[-1], 1.0 if scores.higher_is_better else -1.0
    if do in REFERENCES or not do:
        networks = [r for r in scores.regimes if r not in REFERENCES and analysis.cells[r][size].replicates]
        do = max(networks, key=lambda r: sign * analysis.cells[r][size].mean, default="")
    return do
