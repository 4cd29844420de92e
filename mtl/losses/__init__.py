"""Losses: unreduced values, then the mask, then (sum, count), then one number whose denominator has a name.

A missing label takes no part: its loss and its gradient are exactly zero, whatever stands in its
place (NaN, −1) and whatever the model says there (inf, NaN). A label that is present and wrong (NaN, no
such class) makes the loss NaN.
"""

from mtl.losses.formulas import logistic, softmax, squared
from mtl.losses.reduction import DENOMINATORS, coefficients, factors, reduce, reduce_sums, sum_and_count
from mtl.losses.registry import LOSSES, Loss, linked, loss_of, register, registered, registers, values

__all__ = [
    "DENOMINATORS",
    "LOSSES",
    "Loss",
    "coefficients",
    "factors",
    "linked",
    "logistic",
    "loss_of",
    "reduce",
    "reduce_sums",
    "register",
    "registered",
    "registers",
    "softmax",
    "squared",
    "sum_and_count",
    "values",
]
