"""Progress: the time left goes by work done, failures are counted, and where there is no terminal it says little."""

import io
import re
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from mtl.commands import display
from mtl.commands.display import LINE_SECONDS, Terminal, error_line


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""
    held = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: held.now))
    return held


@pytest.fixture
def spoken():
    """A display without a terminal, and what it has said so far, line by line."""
    terminal = Terminal()
    terminal.console = Console(file=io.StringIO(), force_terminal=False, highlight=False, soft_wrap=True)
    return terminal, lambda: terminal.console.file.getvalue().splitlines()


def seconds(text):
    """Return the seconds of a time such as 1:02:03."""
    total = 0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return total


def left(line):
    return seconds(re.search(r"about ([\d:]+) left", line)[1])


def test_the_time_left_goes_by_work_and_not_by_trials(clock, spoken):
    terminal, lines = spoken
    with terminal.meter("even", 1000.0, 10) as meter:
        # Nine trials of ten are done, and they were a fifth of the work.
        clock.now += 60
        meter(200.0, 9, 0)
        assert left(lines()[-1]) == 240
        assert "20 %, 9/10 trials" in lines()[-1]
        # Then it goes twice as fast: 500 in 60 + 75 seconds.
        clock.now += 75
        meter(300.0, 0, 0)
        assert left(lines()[-1]) == 135
        clock.now += 10_000
        meter(250.0, 0, 0)
        assert left(lines()[-1]) == pytest.approx(10_135 / 3, abs=1)
        assert "about 56:18 left" in lines()[-1]


def test_pieces_of_work_add_up(clock, spoken):
    terminal, lines = spoken
    with terminal.meter("even", 300.0, 3) as meter:
        for _ in range(100):
            meter(1.0, 0, 0)
        meter(0.0, 1, 0)
        meter(0.0, 0, 1)
        clock.now += 50
        meter(50.0, 0, 0)
        assert lines()[-1] == "even: 50 %, 1/3 trials, 1 failed, about 0:50 left"


def test_hours_are_shown_as_hours(clock, spoken):
    terminal, lines = spoken
    with terminal.meter("even", 100.0, 1) as meter:
        clock.now += 3723
        meter(50.0, 0, 0)
        assert lines()[-1].endswith("about 1:02:03 left")
    assert lines()[-1] == "even: done in 1:02:03"


def test_no_time_is_guessed_from_next_to_nothing(clock, spoken):
    terminal, lines = spoken
    with terminal.meter("even", 1000.0, 1) as meter:
        clock.now += 60
        meter(1.0, 0, 0)
        assert lines()[-1] == "even: 0 %, 0/1 trials"


def test_it_never_says_more_than_all(clock, spoken):
    terminal, lines = spoken
    with terminal.meter("even", 10.0, 2) as meter:
        clock.now += 60
        meter(15.0, 2, 0)
        assert lines()[-1] == "even: 100 %, 2/2 trials, about 0:00 left"
    with terminal.meter("none", 0.0, 2) as meter:
        clock.now += 60
        meter(0.0, 1, 0)
        assert lines()[-1] == "none: 0 %, 1/2 trials"


def test_without_a_terminal_a_thousand_events_are_a_few_lines(clock, spoken):
    terminal, lines = spoken
    with terminal.meter("even", 1000.0, 1000) as meter:
        for _ in range(1000):
            clock.now += 0.05
            meter(1.0, 1, 0)
    assert lines()[0] == "even: 1,000 trials to run"
    assert lines()[-1] == "even: done in 0:50"
    assert 3 <= len(lines()) - 2 <= 50 / LINE_SECONDS
    shares = [int(re.match(r"even: (\d+) %", line)[1]) for line in lines()[1:-1]]
    assert shares == sorted(shares)
    assert all("\r" not in line and "\x1b" not in line for line in lines())


def test_a_quick_run_says_that_it_begins_and_that_it_is_done(clock, spoken):
    terminal, lines = spoken
    with terminal.meter("even", 1.0, 1) as meter:
        meter(1.0, 1, 0)
    assert lines() == ["even: 1 trial to run", "even: done in 0:00"]


def test_a_run_that_breaks_off_is_not_said_to_be_done(clock, spoken):
    terminal, lines = spoken
    with pytest.raises(KeyboardInterrupt), terminal.meter("even", 1.0, 1):
        raise KeyboardInterrupt
    assert lines() == ["even: 1 trial to run"]


def test_text_is_shown_as_it_is(spoken):
    terminal, lines = spoken
    for text in ("[bold]a[/bold] [1, 2]", "word " * 200 + "end", "runs/a:key:b :smile:"):
        terminal.say(text)
        assert lines()[-1] == text


def test_a_title_is_shown_as_it_is():
    terminal = Terminal()
    terminal.console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    for title in ("even [bold] :key: [/]", "[red]"):
        with terminal.meter(title, 1.0, 1):
            pass
        assert terminal.console.file.getvalue().count(title) >= 2  # The line before the bar, and the bar.


def test_everything_goes_to_standard_error(capsys):
    terminal = Terminal()
    terminal.say("a line")
    with terminal.meter("even", 1.0, 1) as meter:
        meter(1.0, 1, 0)
    error_line("what is wrong")
    captured = capsys.readouterr()
    assert captured.out == ""
    said = captured.err.splitlines()
    assert said == ["a line", "even: 1 trial to run", "even: done in 0:00", "mtl: what is wrong"]


def test_on_a_terminal_a_bar_shows_work_trials_and_failures_and_goes_when_done():
    terminal = Terminal()
    terminal.console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    text = terminal.console.file.getvalue
    with terminal.meter("even", 200.0, 4) as meter:
        assert "0 %" in text()
        meter(50.0, 1, 0)
        meter(50.0, 0, 1)
        time.sleep(0.3)  # The bar is drawn ten times a second.
        assert re.search(r"50 %\s+1/4 trials, 1 failed", text())
        assert text().count("\x1b[?25l") == 1
    assert text().count("\x1b[?25h") == 1
    assert text().endswith("\x1b[2K")
    assert "done in" not in text()
