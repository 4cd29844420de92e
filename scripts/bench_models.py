"""Compares a training step of ours with PyTorch's on the same model, batch and number of threads, as ratios.

Ours is ``phase.advance``: forward, backward and Adam in a loop inside one compiled call, state donated. PyTorch's is a
plain eager loop over data in memory. Both are run in turn, round by round in one process, so that whatever else the
machine does falls on both; each line has the median over rounds of PyTorch's time over ours (above 1: ours is faster),
the range that holds half of the rounds, and the medians of the times themselves.

Usage (PyTorch is no dependency of mtl; see the extra "oracles" in pyproject.toml):
    python scripts/bench_models.py [--threads 1 2] [--rounds 9] [--models cnn resnet vit lite]
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time

CASES = {
    # name: (backbone, options, side, channels in, batch, steps a round)
    "cnn": ("cnn", {"channels": (16, 32), "features": 64, "norm": "none"}, 28, 1, 128, 32),
    "resnet": ("resnet", {}, 32, 3, 64, 4),
    "vit": ("vit", {}, 32, 3, 64, 2),
    "lite": ("efficientnet_lite", {}, 64, 3, 32, 1),
}
CLASSES = 8


def ours(case: str, implementation: str):
    """Return a function that trains for one round, compiled."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from mtl.models import build, ops
    from mtl.tasks import Task
    from mtl.train import phase
    from mtl.train.phase import Weights
    from mtl.train.program import Data, Lane, Optimizer, Pool, Program, trainable_paths

    name, options, side, channels, batch, steps = CASES[case]
    rows = batch * 8
    rng = np.random.default_rng(0)
    chosen = ops.choose
    ops.choose = lambda _=None: implementation
    try:
        model = build(name, options, (Task("kind", "multiclass", num_classes=CLASSES),))
        x = jnp.asarray(rng.normal(size=(rows, side, side, channels)), jnp.float32)
        weights = Weights(*jax.jit(lambda: model.init(jax.random.key(0), x[:1]))())
        program = Program(
            model, ("kind",), trainable_paths(weights.params, (".*",), ("kind",)), Optimizer(), batch, "per_task", 1.0,
            "examples", "eval", "last", "kind",
        )  # fmt: skip
        present = {"kind": jnp.ones((1, rows), bool)}
        pool = {"kind": Pool(jnp.arange(rows, dtype=jnp.int32)[None], jnp.full(1, rows, jnp.int32))}
        labels = {"kind": jnp.asarray(rng.integers(0, CLASSES, (1, rows)), jnp.int32)}
        zeros = jnp.zeros((1, side, side, channels))
        data = Data(x, labels, present, present, pool, pool, zeros, zeros + 1)
        whole = jnp.int32(0)
        most = jnp.int32(1 << 30)
        lane = Lane(jnp.uint32(0), jnp.float32(1e-3), jnp.float32(0), jnp.ones(1), most, jnp.zeros(1, jnp.int32), whole)
        moving, frozen = phase.start(program, weights)
        advance = jax.jit(lambda m, f, d, b, e: phase.advance(program, lane, m, f, d, b, e), donate_argnums=0)
        state = [jax.tree.map(jnp.copy, moving), 0]

        def run() -> None:
            begin = state[1]
            state[0] = advance(state[0], frozen, data, jnp.int32(begin), jnp.int32(begin + steps))
            state[1] = begin + steps
            jax.block_until_ready(state[0])

        run()
    finally:
        ops.choose = chosen
    return run


def pytorchs(case: str, threads: int):
    """Return a function that trains for one round with PyTorch."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    name, _, side, channels, batch, steps = CASES[case]

    def block(c, d, size, stride=1, groups=1, act=None):
        parts = [nn.Conv2d(c, d, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(d)]
        return nn.Sequential(*parts, *([act] if act else []))

    class Basic(nn.Module):
        def __init__(self, c, d, stride):
            super().__init__()
            self.body = nn.Sequential(block(c, d, 3, stride, act=nn.ReLU(True)), block(d, d, 3))
            self.shortcut = block(c, d, 1, stride) if stride > 1 or c != d else nn.Identity()

        def forward(self, x):
            return torch.relu(self.body(x) + self.shortcut(x))

    class Bottleneck(nn.Module):
        def __init__(self, c, d, size, stride, expansion):
            super().__init__()
            e, act = c * expansion, nn.ReLU6(True)
            self.same = c == d and stride == 1
            self.body = nn.Sequential(
                *([block(c, e, 1, act=act)] if expansion > 1 else []),
                block(e, e, size, stride, e, act),
                block(e, d, 1),
            )

        def forward(self, x):
            return x + self.body(x) if self.same else self.body(x)

    class Encoder(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.heads = heads
            self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x):
            b, t, w = x.shape
            q, k, v = self.qkv(self.norms[0](x)).reshape(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, w))
            return x + self.mlp(self.norms[1](x))

    class ViT(nn.Module):
        def __init__(self, patch=4, width=192, depth=12, heads=3):
            super().__init__()
            self.embed = nn.Conv2d(channels, width, patch, patch)
            self.cls = nn.Parameter(torch.zeros(1, 1, width))
            self.position = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2 + 1, width))
            self.body = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)), nn.LayerNorm(width, eps=1e-6))

        def forward(self, x):
            x = self.embed(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
            return self.body(x)[:, 0]

    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if name == "cnn":
        parts = [nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        parts += [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        net, features = nn.Sequential(*parts, nn.Flatten(), nn.Linear(32 * (side // 4) ** 2, 64), nn.ReLU()), 64
    elif name == "resnet":
        widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
        stages = [Basic(c, d, 1 if c == d else 2) for c, d in itertools.pairwise(widths)]
        net, features = nn.Sequential(block(channels, 64, 3, act=nn.ReLU(True)), *stages, pool), 512
    elif name == "vit":
        net, features = ViT(), 192
    else:
        from mtl.models.efficientnet_lite import LITE0

        layers, c = [block(channels, 32, 3, 2, act=nn.ReLU6(True))], 32
        for size, stride, expansion, d, count in LITE0:
            for i in range(count):
                layers.append(Bottleneck(c, d, size, 1 if i else stride, expansion))
                c = d
        net, features = nn.Sequential(*layers, block(c, 1280, 1, act=nn.ReLU6(True)), pool), 1280
    net = nn.Sequential(net, nn.Linear(features, CLASSES)).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    x = torch.randn(batch * 8, channels, side, side)
    y = torch.randint(0, CLASSES, (batch * 8,))

    def run() -> None:
        for _ in range(steps):
            rows = torch.randint(0, len(x), (batch,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()

    run()
    return run


def measure(case: str, threads: int, rounds: int) -> None:
    """Print a line for one model at one number of threads."""
    import numpy as np

    steps = CASES[case][-1]
    runs = {"twin": ours(case, "twin"), "torch": pytorchs(case, threads)}
    if case == "lite":
        runs["xla"] = ours(case, "xla")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds):
        for name, run in runs.items():
            if name == "xla" and i >= 2:  # It takes tens of seconds a step.
                continue
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    mine = np.asarray(seconds["twin"])
    for other in (name for name in runs if name != "twin"):
        ratios = np.asarray(seconds[other]) / mine[: len(seconds[other])]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        a, b = (1e3 * np.median(s) / steps for s in (mine, seconds[other]))
        print(
            f"{case:8s} {threads} thread{'s' if threads > 1 else ' '}  {other + ' / ours':13s} {middle:5.2f}x "
            f"[{low:.2f}, {high:.2f}]   {b:8.2f} / {a:8.2f} ms a step",
            flush=True,
        )


def main() -> None:
    """Run each case in a process of its own, pinned to as many cores as it has threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        import torch  # noqa: F401
    except ImportError:
        print("bench_models needs PyTorch: install the extra with `pip install -e '.[oracles]'`.", file=sys.stderr)
        sys.exit(2)
    if args.one:
        measure(args.models[0], args.threads[0], args.rounds)
        return
    cores = sorted(os.sched_getaffinity(0))
    for case in args.models:
        for threads in args.threads:
            # XLA takes as many threads as it sees cores, once and for all, when it starts.
            code = subprocess.run(
                [sys.executable, __file__, "--one", "--models", case, "--threads", str(threads), "--rounds",
                 str(args.rounds)],
                env={**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(threads)},
                preexec_fn=lambda n=threads: os.sched_setaffinity(0, cores[:n]),
            ).returncode  # fmt: skip
            if code:
                sys.exit(code)


if __name__ == "__main__":
    main()
