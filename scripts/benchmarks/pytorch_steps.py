"""PyTorch's side: a plain loop over data in memory, as someone who knows PyTorch writes it."""

from __future__ import annotations

import time

import torch
from torch import nn

from benchmarks.cases import CASES, inputs, labels
from benchmarks.pytorch_models import build
from benchmarks.side import Side


def make(case: str, fused: bool = False, compiled: bool = False, device: str = "cpu") -> Side:
    """Return the steps of a case; one unit is a step.

    Nothing is read back from a step, gradients are set to none, and indices are drawn by PyTorch.

    Args:
      case: its name.
      fused: whether Adam is the one with a fused kernel, which has to be asked for.
      compiled: whether the network and its loss go through ``torch.compile``; it is timed too.
      device: what it runs on.
    """
    c = CASES[case]
    torch.manual_seed(0)
    if device != "cpu":
        torch.set_float32_matmul_precision("high")  # Products of fewer bits where the device has them, as XLA's are.
    net = build(c).train().to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=fused)
    x, y = (torch.from_numpy(a).to(device) for a in (inputs(c, c.rows), labels(c, c.rows)))
    if x.ndim == 4:
        x = x.permute(0, 3, 1, 2).contiguous()
    mask = ~torch.isnan(y) if c.binary else None
    y = torch.nan_to_num(y) if c.binary else y.long()
    weight = mask.float() if mask is not None else None

    def loss(rows: torch.Tensor) -> torch.Tensor:
        z = net(x[rows])
        if weight is None:
            return nn.functional.cross_entropy(z, y[rows])
        value = nn.functional.binary_cross_entropy_with_logits(z, y[rows], weight[rows], reduction="sum")
        return value / c.batch

    loss = torch.compile(loss) if compiled else loss

    def run(units: int) -> None:
        for _ in range(units):
            value = loss(torch.randint(0, c.rows, (c.batch,), device=device))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()

    begun = time.perf_counter()
    run(1)
    return Side(run, {"batch": c.batch, "compile": time.perf_counter() - begun})
