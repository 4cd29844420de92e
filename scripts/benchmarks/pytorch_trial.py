"""One trial with PyTorch, as one of a shell loop's processes: trains, evaluates, writes a small JSON file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn

from benchmarks.cases import CASES, inputs, labels
from benchmarks.pytorch_models import build


def main(seed: int, lr: float, steps: int, path: str) -> None:
    """Run the trial.

    Args:
      seed: of everything random.
      lr: learning rate.
      steps: of training.
      path: of the result.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    c = CASES["mlp"]
    net = build(c).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    x, y = torch.from_numpy(inputs(c, c.rows)), torch.from_numpy(labels(c, c.rows))
    weight, y = (~torch.isnan(y)).float(), torch.nan_to_num(y)
    test = c.rows // 8
    for _ in range(steps):
        rows = torch.randint(test, c.rows, (c.batch,))
        value = nn.functional.binary_cross_entropy_with_logits(net(x[rows]), y[rows], weight[rows], reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        (value / c.batch).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        right = ((net(x[:test]) > 0).float() == y[:test]).float() * weight[:test]
    accuracy = (right.sum(0) / weight[:test].sum(0)).tolist()
    Path(path).write_text(json.dumps({"seed": seed, "lr": lr, "steps": steps, "accuracy": accuracy}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
