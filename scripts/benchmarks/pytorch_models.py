"""The same models as PyTorch modules."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from benchmarks.cases import Case

#: (kernel, stride, expansion, channels, repeats) of EfficientNet-Lite0's stages (Tan & Le 2019, arXiv:1905.11946).
LITE0 = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def block(c: int, d: int, size: int, stride: int = 1, groups: int = 1, act: nn.Module | None = None) -> nn.Module:
    """Return a convolution, its batch normalisation and perhaps an activation."""
    parts = [nn.Conv2d(c, d, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(d)]
    return nn.Sequential(*parts, *([act] if act else []))


class Basic(nn.Module):
    """ResNet's basic block."""

    def __init__(self, c: int, d: int, stride: int) -> None:
        """Build it."""
        super().__init__()
        self.body = nn.Sequential(block(c, d, 3, stride, act=nn.ReLU(True)), block(d, d, 3))
        self.shortcut = block(c, d, 1, stride) if stride > 1 or c != d else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return torch.relu(self.body(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """EfficientNet-Lite's inverted bottleneck."""

    def __init__(self, c: int, d: int, size: int, stride: int, expansion: int) -> None:
        """Build it."""
        super().__init__()
        e, act = c * expansion, nn.ReLU6(True)
        self.same = c == d and stride == 1
        first = [block(c, e, 1, act=act)] if expansion > 1 else []
        self.body = nn.Sequential(*first, block(e, e, size, stride, e, act), block(e, d, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return x + self.body(x) if self.same else self.body(x)


class Encoder(nn.Module):
    """A transformer's encoder block, normalised before each part."""

    def __init__(self, width: int, heads: int) -> None:
        """Build it."""
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        b, t, w = x.shape
        q, k, v = self.qkv(self.norms[0](x)).reshape(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, w))
        return x + self.mlp(self.norms[1](x))


class ViT(nn.Module):
    """A vision transformer whose class token is what heads see."""

    def __init__(self, side: int, channels: int, patch: int = 4, width: int = 192, depth: int = 12, heads: int = 3):
        """Build it."""
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2 + 1, width))
        self.body = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)), nn.LayerNorm(width, eps=1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        return self.body(x)[:, 0]


def build(case: Case) -> nn.Module:
    """Return a case's model with its heads, which are one layer."""
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if case.backbone == "mlp":
        sizes = (*case.shape, *case.options["hidden"])
        parts: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            parts += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*parts, nn.Linear(sizes[-1], case.outputs))
    side, _, channels = case.shape
    if case.backbone == "cnn":
        parts, before = [], channels
        for c in case.options["channels"]:
            parts += [nn.Conv2d(before, c, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            before, side = c, side // 2
        features = case.options["features"]
        net = nn.Sequential(*parts, nn.Flatten(), nn.Linear(before * side**2, features), nn.ReLU())
    elif case.backbone == "resnet":
        widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
        stages = [Basic(c, d, 1 if c == d else 2) for c, d in itertools.pairwise(widths)]
        net, features = nn.Sequential(block(channels, 64, 3, act=nn.ReLU(True)), *stages, pool), 512
    elif case.backbone == "vit":
        net, features = ViT(side, channels), 192
    else:
        layers, c = [block(channels, 32, 3, 2, act=nn.ReLU6(True))], 32
        for size, stride, expansion, d, count in LITE0:
            for i in range(count):
                layers.append(Bottleneck(c, d, size, 1 if i else stride, expansion))
                c = d
        net, features = nn.Sequential(*layers, block(c, 1280, 1, act=nn.ReLU6(True)), pool), 1280
    return nn.Sequential(net, nn.Linear(features, case.outputs))
