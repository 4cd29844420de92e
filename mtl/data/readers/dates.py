"""Dates and times: one format a column, days as a number, and where in the day, the week and the year they are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

#: What a column may be written in; ISO 8601 with or without a time, others with the day first where it may be.
_DATES = (
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%y", "%d/%m/%y",
    "%m/%d/%y", "%Y-%m-%d", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y",
)  # fmt: skip
_TIMES = ("", " %H:%M", " %H:%M:%S")
ISO = "ISO8601"
CLOCKS = ("%H:%M", "%H:%M:%S")
FORMATS = (ISO, *CLOCKS, *(f"{date}{time}" for date, time in itertools.product(_DATES, _TIMES)))

Part = Literal["day", "week", "year"]

#: How many days each part takes to come round.
PERIODS: dict[Part, float] = {"day": 1.0, "week": 7.0, "year": 365.2425}

# What a column of times has for days: those of pandas begin in 1900.
_CLOCK_DAY = 25_567.0

#: Cells that decide which formats come into question.
_LOOKED_AT = 40


def days(texts: Sequence[str], format: str) -> np.ndarray:
    """Return days since 1970-01-01 (UTC), NaN for what is not in a format; of times the share of a day.

    Args:
      texts: the cells.
      format: one of ``FORMATS``, or another of strptime.

    Raises:
      ValueError: for what is no format.

    >>> days(["1970-01-02", "1970-01-01 12:00", "no"], ISO).tolist(), days(["18:00"], "%H:%M").tolist()
    ([1.0, 0.5, nan], [0.75])
    """
    import pandas as pd  # here: it takes 0.2 s to import, and not every study needs it

    parsed = pd.to_datetime(pd.Series(list(texts), dtype=object), format=format, errors="coerce", utc=True)
    found = np.where(parsed.isna(), np.nan, parsed.dt.as_unit("us").astype("int64") / 86_400e6)
    return found + _CLOCK_DAY if format in CLOCKS else found


def is_format(format: str) -> bool:
    """Return whether a text is a format of dates.

    >>> is_format("%d.%m.%Y"), is_format("%Q")
    (True, False)
    """
    try:
        days(["0"], format)
    except ValueError:
        return False
    return "%" in format or format == ISO


def formats_of(texts: Sequence[str], share: float, counts: Sequence[int] | np.ndarray = ()) -> list[str]:
    """Return the formats that at least a share of some cells are in, those that fit most first.

    Args:
      texts: the distinct cells.
      share: of all.
      counts: how many cells have each text; one if not given.

    >>> formats_of(["03.04.2020", "25.12.2020"], 1.0), formats_of(["03/04/2020"], 1.0), formats_of(["cat"], 1.0)
    (['%d.%m.%Y'], ['%d/%m/%Y', '%m/%d/%Y'], [])
    """
    weights = np.ones(len(texts)) if not len(counts) else np.asarray(counts, float)
    some = [texts[i] for i in np.argsort(-weights, kind="stable")[:_LOOKED_AT] if len(texts[i]) < 64]
    some = [text for text in some if any(c.isdigit() for c in text) and any(c in "-/.: " for c in text)]
    seen = set("".join(some))
    likely = [f for f in FORMATS if some and (f == ISO or seen.issuperset(re.sub("%.", "", f)))]
    likely = [f for f in likely if np.isfinite(days(some, f)).any()]
    fits = {f: weights[np.isfinite(days(texts, f))].sum() for f in likely}
    return sorted((f for f in likely if fits[f] >= share * weights.sum()), key=lambda f: -fits[f])


def parts_of(when: np.ndarray, format: str) -> tuple[Part, ...]:
    """Return the parts that come round at least once in a column of days, and vary.

    >>> parts_of(np.arange(30.0), ISO), parts_of(np.array([0.25, 0.5]), "%H:%M")
    (('week',), ('day',))
    """
    there = when[np.isfinite(when)]
    if format in CLOCKS:
        return ("day",)
    span = np.ptp(there) if len(there) else 0.0
    return tuple(
        part
        for part, period in PERIODS.items()
        if span >= period and np.ptp(there % period) > 1e-9 and (part != "day" or np.ptp(there % 1.0) > 1e-9)
    )


def encoded_days(when: np.ndarray, parts: Sequence[Part]) -> np.ndarray:
    """Return [N, 1 + 2·parts]: days, NaN where missing, and sin and cos of 2π·days/period, 0 where missing.

    >>> encoded_days(np.array([0.25, np.nan]), ("day",)).round(6).tolist()
    [[0.25, 1.0, 0.0], [nan, 0.0, 0.0]]
    """
    turns = [2 * np.pi * when / PERIODS[part] for part in parts]
    around = [np.nan_to_num(wave(turn)) for turn in turns for wave in (np.sin, np.cos)]
    return np.stack([when, *around], axis=1)
