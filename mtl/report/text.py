"""Numbers as readers see them (sizes, metrics, intervals, quantities), and values fit for strict JSON."""

from __future__ import annotations

import math
from typing import Any

Number = float | int


def size_text(size: Number) -> str:
    """Write a target size.

    Args:
      size: number of labels, or a fraction.

    Returns:
      It without a trailing ``.0``.

    >>> size_text(50.0), size_text(1e6), size_text(0.25)
    ('50', '1000000', '0.25')
    """
    return str(int(size)) if float(size).is_integer() else repr(float(size))


def row_text(regime: str) -> str:
    """Write the name of a row.

    Args:
      regime: a regime's name, with ``@k`` for one whose budget is taken k times.

    Returns:
      The text.

    >>> row_text("lp_ft"), row_text("lp_ft@2")
    ('lp_ft', 'lp_ft ×2')
    """
    name, _, times = regime.rpartition("@")
    return f"{name} ×{times}" if name and times.isdecimal() else regime


def number_text(value: Number, unit: Number = 1.0, signed: bool = False) -> str:
    """Write a metric or a gain in the unit of the tables, to a thousandth of the metric's own unit.

    Args:
      value: in the metric's own unit.
      unit: factor, as in ``Scores.unit``.
      signed: whether to write a plus.

    Returns:
      The text, with a true minus sign; an em dash when the value is not finite.

    >>> number_text(0.92345, 100), number_text(0.0412, 100, signed=True), number_text(-0.5)
    ('92.3', '+4.1', '−0.500')
    """
    if not math.isfinite(value):
        return "—"
    decimals = min(6, max(0, 3 - round(math.log10(unit))))
    text = f"{value * unit:.{decimals}f}"
    if float(text) == 0:  # neither −0.0 nor +0.0
        return text.lstrip("-")
    return text.replace("-", "−") if text.startswith("-") else ("+" if signed else "") + text


def p_text(p: Number) -> str:
    """Write a p value.

    Args:
      p: the value.

    Returns:
      Two significant digits, three decimals at most; an em dash where there is none.

    >>> p_text(0.0004), p_text(0.0123), p_text(0.2), p_text(1.0), p_text(float("nan"))
    ('<0.001', '0.012', '0.20', '1.00', '—')
    """
    if not math.isfinite(p):
        return "—"
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def interval_text(low: Number, high: Number, unit: Number = 1.0) -> str:
    """Write an interval, or nothing where there is none.

    Args:
      low: lower end, in the metric's own unit.
      high: upper end.
      unit: factor, as in ``Scores.unit``.

    Returns:
      ``[low, high]`` or an empty string.

    >>> interval_text(0.915, 0.93, 100)
    '[91.5, 93.0]'
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{number_text(low, unit)}, {number_text(high, unit)}]"


def human(value: Number, unit: str = "") -> str:
    """Write a large or small quantity with three significant digits and an SI prefix.

    Args:
      value: the quantity.
      unit: what it is counted in.

    Returns:
      The text; an em dash when the value is not finite.

    >>> human(28800), human(1.234e9, "FLOP"), human(0.04217, "s"), human(999.6), human(0)
    ('28.8 k', '1.23 GFLOP', '42.2 ms', '1.00 k', '0')
    """
    if not math.isfinite(value):
        return "—"
    if value == 0:
        return f"0 {unit}".strip()
    prefixes = {-3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T", 5: "P", 6: "E"}
    value = float(f"{value:.3g}")  # round first: 999.6 is 1.00 k, not 1000
    power = min(6, max(-3, math.floor(math.log10(abs(value)) / 3 + 1e-12)))
    scaled = value / 1000.0**power
    decimals = max(0, 2 - math.floor(math.log10(abs(scaled)) + 1e-12)) if abs(scaled) < 1000 else 0
    if power == 0 and float(value).is_integer() and not unit:
        decimals = 0
    return f"{scaled:.{decimals}f} {prefixes[power]}{unit}".strip()


#: What readers call a metric whose name in configs is not what the field writes.
_METRICS = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "ece": "ECE",
    "f1": "F1",
    "iou": "IoU",
    "log_loss": "log loss",
    "pixel_accuracy": "pixel accuracy",
    "pixel_squared_error": "pixel squared error",
    "r2": "R²",
    "squared_error": "squared error",
}


def metric_name(metric: str) -> str:
    """Write a metric's name as readers know it.

    Args:
      metric: its name in configs; one that a config registers is written as it is.

    Returns:
      The text.

    >>> metric_name("auroc"), metric_name("log_loss"), metric_name("own_score")
    ('AUROC', 'log loss', 'own_score')
    """
    return _METRICS.get(metric, metric)


def metric_text(metric: str, unit: Number) -> str:
    """Write the metric's name with the factor that the tables use.

    Args:
      metric: its name.
      unit: factor, as in ``Scores.unit``.

    Returns:
      The text.

    >>> metric_text("accuracy", 100), metric_text("log_loss", 1), metric_text("brier", 1000)
    ('accuracy (%)', 'log loss', 'Brier score (× 1000)')
    """
    name = metric_name(metric)
    if unit == 1:
        return name
    return f"{name} (%)" if unit == 100 else f"{name} (× {unit:g})"


def gain_unit_text(metric: str, unit: Number) -> str:
    """Name what differences of the metric are counted in.

    Args:
      metric: its name.
      unit: factor, as in ``Scores.unit``.

    Returns:
      The text.

    >>> gain_unit_text("accuracy", 100), gain_unit_text("log_loss", 1)
    ('points of accuracy', 'log loss')
    """
    return f"points of {metric_name(metric)}" if unit == 100 else metric_text(metric, unit)


def plain(value: Any) -> Any:
    """Make a value fit for strict JSON: NumPy scalars and arrays unpacked, what is not finite becomes None.

    Args:
      value: nested dicts, lists, tuples and scalars.

    Returns:
      The same of dicts, lists, str, int, float, bool and None; other objects as their ``str``.

    >>> plain({"a": (1.5, float("nan")), 3: None})
    {'a': [1.5, None], '3': None}
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in (sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)]
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
