"""Numbers and lists in plain English, for the verdict and the caveats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mtl.report.analysis import Scores, Sizes


def join(words: Sequence[str], last: str = "and") -> str:
    """'a, b and c'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def number(n: float) -> str:
    """A target size: '500', '0.5'."""
    return str(int(n)) if float(n).is_integer() else f"{n:g}"


def column(grid: Sequence[float]) -> str:
    """What the columns of a table are: 'n', the target's labels, or the last part of another field's name."""
    field = getattr(grid, "field", Sizes.field)
    return "n" if field == Sizes.field else field.rpartition(".")[2]


def with_labels(sizes: Sequence[float], grid: Sequence[float]) -> str:
    """'with 10, 20 and 500 labels', or 'at source_size 10'; three or more neighbours of the grid become '10 to 50'."""
    at = [grid.index(n) for n in sizes]
    runs: list[list[int]] = []
    for i in at:
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    words: list[str] = []
    for run in runs:
        if len(run) > 2:
            words.append(f"{number(grid[run[0]])} to {number(grid[run[-1]])}")
        else:
            words += [number(grid[i]) for i in run]
    if (name := column(grid)) != "n":
        return f"at {name} {join(words)}"
    noun = "label" if words == ["1"] else "labels"
    return f"with {join(words)} {noun}"


def listed(cells: Iterable[tuple[str, float]], grid: Sequence[float]) -> list[str]:
    """['a and b with 10 and 20 labels', 'c with 10 labels'], of (name, size) in the order of sizes."""
    sizes: dict[str, list[float]] = {}
    for name, n in cells:
        sizes.setdefault(name, []).append(n)
    names: dict[tuple[float, ...], list[str]] = {}
    for name, own in sizes.items():
        names.setdefault(tuple(own), []).append(name)
    return [f"{join(who)} {with_labels(own, grid)}" for own, who in names.items()]


def value(x: float, scores: Scores, signed: bool = False) -> str:
    """A number in the unit of the table: one decimal for points, three otherwise."""
    digits = 1 if scores.unit == 100 else 3
    rounded = round(x * scores.unit, digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{digits}f}".replace("-", "−")


def amount(gain: float, low: float, high: float, scores: Scores) -> str:
    """'+4.1 points [2.9, 5.3]', or '+0.041 [0.029, 0.053] in log_loss'."""
    interval = f"[{value(low, scores)}, {value(high, scores)}]"
    if scores.unit == 100:
        return f"{value(gain, scores, True)} points {interval}"
    return f"{value(gain, scores, True)} {interval} in {scores.metric}"


def margin(scores: Scores) -> str:
    """'2.0 points', or '0.020 in log_loss'."""
    return f"{value(scores.margin, scores)} {'points' if scores.unit == 100 else f'in {scores.metric}'}"


def capital(text: str, names: Sequence[str]) -> str:
    """A capital at the start, unless the sentence starts with the name of a regime."""
    return text if text.split(maxsplit=1)[0].strip(",;:") in names else text[0].upper() + text[1:]
