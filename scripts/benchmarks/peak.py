"""What the machine can do at most: a large matrix product, and a copy of memory."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.side import Side


def make_product(size: int = 1536) -> Side:
    """Return products of two matrices; one unit is a product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)

    def run(units: int) -> None:
        for _ in range(units):
            torch.mm(a, b, out=out)

    return Side(run, {"flops": 2.0 * size**3})


def make_copy(megabytes: int = 256) -> Side:
    """Return copies of memory far larger than any cache; one unit is a copy, read and written bytes count."""
    a = torch.from_numpy(np.zeros(megabytes << 18, np.float32)) + 1
    b = torch.empty_like(a)

    def run(units: int) -> None:
        for _ in range(units):
            b.copy_(a)

    return Side(run, {"bytes": 2.0 * a.numel() * 4})
