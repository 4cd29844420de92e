"""What a command shows while it works: lines, and a progress bar with the time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mtl.host.escape import escape

#: Seconds between two lines of progress where there is no terminal to draw a bar on.
LINE_SECONDS = 10.0


class Terminal:
    """Speaks on standard error, so that standard output holds results only."""

    def __init__(self) -> None:
        """Open standard error."""
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(escape(text), markup=False, emoji=False)

    @contextlib.contextmanager
    def meter(self, title: str, work: float, trials: int) -> Iterator[_Meter]:
        """Show a bar on a terminal, a line now and then elsewhere; progress goes by work, not by trials."""
        self.say(f"{title}: {trials:,} {'trial' if trials == 1 else 'trials'} to run")
        if not self.console.is_terminal:
            lines = _Meter(work, trials, lambda m: self.say(f"{title}: {m}"))
            yield lines
            self.say(f"{title}: done in {clock_text(time.monotonic() - lines.begun)}")
            return
        columns = (
            TextColumn("{task.description}", markup=False),  # A study may be called "[1/2]".
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[trials]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = progress.add_task(title, total=work, trials="")

            def draw(m: _Meter) -> None:
                progress.update(bar, completed=m.worked, trials=m.counts)

            yield _Meter(work, trials, draw, seconds=0.0)


class _Meter:
    """Adds up work done, and tells a function of it every so many seconds."""

    def __init__(self, work: float, trials: int, tell, seconds: float = LINE_SECONDS) -> None:  # type: ignore[no-untyped-def]
        self.work, self.trials, self.tell, self.seconds = work, trials, tell, seconds
        self.worked, self.done, self.failed = 0.0, 0, 0
        self.begun = self.told = time.monotonic()

    def __call__(self, work: float, done: int, failed: int) -> None:
        self.worked, self.done, self.failed = self.worked + work, self.done + done, self.failed + failed
        if time.monotonic() - self.told >= self.seconds:
            self.told = time.monotonic()
            self.tell(self)

    @property
    def counts(self) -> str:
        """How many trials are done."""
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"{self.done:,}/{self.trials:,} trials{failed}"

    def __str__(self) -> str:
        share = min(1.0, self.worked / self.work) if self.work > 0 else 0.0
        spent = time.monotonic() - self.begun
        left = f", about {clock_text(spent * (1 - share) / share)} left" if share > 0.02 else ""
        return f"{100 * share:.0f} %, {self.counts}{left}"


def clock_text(seconds: float) -> str:
    """Return a time in minutes and seconds, and hours if it has any."""
    whole = round(seconds)
    return (
        f"{whole // 60}:{whole % 60:02d}"
        if whole < 3600
        else f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    )


def error_line(message: str) -> None:
    """Print what is wrong, in one sentence, to standard error."""
    print(f"mtl: {escape(message)}", file=sys.stderr)
