"""Writes tests/golden/backbones.json: what PyTorch's own layers compute for the tiny backbones of ``draw.CASES``.

Run from the repository's root with PyTorch on the path (made with torch 2.13.0, on a CPU):
    python -m tests.golden.make_backbones
"""

import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

from tests.golden.draw import CASES, draw


class Draws:
    """Weights by their path in ``mtl``, drawn the first time they are asked for, with PyTorch's order of axes."""

    def __init__(self, train):
        self.train, self.params = train, {}

    def get(self, path, shape):
        if path not in self.params:
            self.params[path] = torch.tensor(draw(path, shape), requires_grad=True)
        return self.params[path]

    def conv(self, x, path, features, size, stride, padding, bias=False, groups=1):
        kernel = self.get(f"{path}/kernel", (size, size, x.shape[1] // groups, features)).permute(3, 2, 0, 1)
        b = self.get(f"{path}/bias", (features,)) if bias else None
        return F.conv2d(x, kernel, b, stride, padding, groups=groups)

    def norm(self, x, path, kind):
        c = x.shape[1]
        scale, bias = self.get(f"{path}/scale", (c,)), self.get(f"{path}/bias", (c,))
        if kind == "group":
            return F.group_norm(x, math.gcd(32, c), scale, bias, eps=1e-5)
        mean, var = (torch.tensor(draw(f"{path}/{name}", (c,))) for name in ("mean", "var"))
        return F.batch_norm(x, mean, var, scale, bias, training=self.train, eps=1e-5)

    def layer_norm(self, x, path):
        c = x.shape[-1]
        return F.layer_norm(x, (c,), self.get(f"{path}/scale", (c,)), self.get(f"{path}/bias", (c,)), eps=1e-6)

    def dense(self, x, path, features):
        kernel = self.get(f"{path}/kernel", (x.shape[-1], features))
        return F.linear(x, kernel.T, self.get(f"{path}/bias", (features,)))


def resnet(w, x, width, depth=18, stem="small", norm="batch"):
    x = w.conv(x, "stem/conv", width, *((3, 1, 1) if stem == "small" else (7, 2, 3)))
    x = F.relu(w.norm(x, "stem/norm", norm))
    if stem == "large":
        x = F.max_pool2d(x, 3, 2, 1)
    index = 0
    for stage, count in enumerate({18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[depth]):
        for i in range(count):
            name, stride, channels = f"block_{index}", 2 if stage and not i else 1, width * 2**stage
            y = F.relu(w.norm(w.conv(x, f"{name}/conv_0", channels, 3, stride, 1), f"{name}/norm_0", norm))
            y = w.norm(w.conv(y, f"{name}/conv_1", channels, 3, 1, 1), f"{name}/norm_1", norm)
            if x.shape != y.shape:
                x = w.conv(x, f"{name}/shortcut_conv", channels, 1, stride, 0)
                x = w.norm(x, f"{name}/shortcut_norm", norm)
            x, index = F.relu(x + y), index + 1
    return x.mean((2, 3))


def vit(w, x, patch, width, depth, heads, pool="cls", gelu="exact"):
    x = w.conv(x, "embed/conv", width, patch, patch, 0, bias=True).flatten(2).transpose(1, 2)
    if pool == "cls":
        x = torch.cat([w.get("embed/cls", (1, 1, width)).expand(len(x), -1, -1), x], 1)
    x = x + w.get("embed/position", (1, x.shape[1], width))
    for i in range(depth):
        name = f"block_{i}"
        qkv = w.dense(w.layer_norm(x, f"{name}/norm_0"), f"{name}/attention/qkv", 3 * width)
        q, k, v = qkv.reshape(*x.shape[:2], 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + w.dense(y, f"{name}/attention/out", width)
        y = w.dense(w.layer_norm(x, f"{name}/norm_1"), f"{name}/mlp_0", 4 * width)
        x = x + w.dense(F.gelu(y, approximate="tanh" if gelu == "tanh" else "none"), f"{name}/mlp_1", width)
    x = w.layer_norm(x, "norm")
    return x[:, 0] if pool == "cls" else x.mean(1)


def efficientnet_lite(w, x, stages, stem, features):
    x = F.relu6(w.norm(w.conv(x, "stem/conv", stem, 3, 2, 1), "stem/norm", "batch"))
    index = 0
    for size, first_stride, expansion, channels, count in stages:
        for i in range(count):
            name, stride, y = f"block_{index}", 1 if i else first_stride, x
            if expansion > 1:
                y = w.conv(y, f"{name}/expand", x.shape[1] * expansion, 1, 1, 0)
                y = F.relu6(w.norm(y, f"{name}/expand_norm", "batch"))
            y = w.conv(y, f"{name}/depthwise", y.shape[1], size, stride, size // 2, groups=y.shape[1])
            y = F.relu6(w.norm(y, f"{name}/depthwise_norm", "batch"))
            y = w.norm(w.conv(y, f"{name}/project", channels, 1, 1, 0), f"{name}/project_norm", "batch")
            x, index = x + y if x.shape == y.shape else y, index + 1
    x = F.relu6(w.norm(w.conv(x, "top/conv", features, 1, 1, 0), "top/norm", "batch"))
    return x.mean((2, 3))


def numbers(x):
    return [float(f"{v:.7g}") for v in np.asarray(x.detach(), np.float64).ravel()]


def main():
    golden = {}
    for case, (backbone, options, shape) in CASES.items():
        for mode in ("eval", "train"):
            w = Draws(mode == "train")
            x = torch.tensor(draw(f"{case}/x", shape)).requires_grad_()
            y = globals()[backbone](w, x.permute(0, 3, 1, 2), **options)
            (y * torch.cos(torch.arange(y.numel(), dtype=torch.float32)).reshape(y.shape)).sum().backward()
            golden[f"{case}, {mode}"] = {
                "parameters": sum(p.numel() for p in w.params.values()),
                "features": numbers(y[:, :16]),
                # The image's gradient has passed through everything; the norm of all the others' stands for them.
                "gradient": numbers(x.grad[:, ::4, ::4, 0]),
                "norm": numbers(sum((p.grad**2).sum() for p in w.params.values()) ** 0.5),
            }
    text = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in golden.items())
    pathlib.Path(__file__).with_name("backbones.json").write_text(f"{{\n{text}\n}}\n")


if __name__ == "__main__":
    main()
