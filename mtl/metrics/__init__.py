"""Metrics of one task, over the labels that are present; NaN means undefined, never 0.5 and never 0.

Every metric is a pure function of (outputs, labels, mask), and of the examples' weights if wanted; it may be
compiled and batched as it is. A missing slot takes no part, whatever it holds. A label that is present and
cannot be (NaN, no such class), or a NaN among the outputs there, gives NaN.
"""

from mtl.metrics.averages import accuracy, brier, log_loss, squared_error
from mtl.metrics.dense import iou, pixel_accuracy, pixel_squared_error
from mtl.metrics.pooled import ECE_BINS, ece, f1, r2
from mtl.metrics.ranking import auroc, average_precision
from mtl.metrics.registry import METRICS, Metric, evaluate, macro, metric, per_example, register

__all__ = [
    "ECE_BINS",
    "METRICS",
    "Metric",
    "accuracy",
    "auroc",
    "average_precision",
    "brier",
    "ece",
    "evaluate",
    "f1",
    "iou",
    "log_loss",
    "macro",
    "metric",
    "per_example",
    "pixel_accuracy",
    "pixel_squared_error",
    "r2",
    "register",
    "squared_error",
]
