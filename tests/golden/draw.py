"""Numbers that both sides of a golden test draw alike: by NumPy, from a name and a shape."""

import zlib

import numpy as np


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return what a parameter, a statistic or an input of that name holds."""
    x = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    last = name.rsplit("/", 1)[-1]
    if last in ("scale", "var"):
        x = 1 + 0.3 * np.tanh(x)
    elif last == "kernel":
        x = x / np.sqrt(np.prod(shape[:-1]))
    elif last != "x":
        x = 0.3 * x
    return x.astype(np.float32)


#: Tiny configurations: name → (backbone, options, shape of the inputs).
CASES = {
    "resnet small batch": ("resnet", {"width": 16}, (3, 9, 8, 3)),  # wide enough for Winograd's algorithm
    "resnet large group": ("resnet", {"width": 4, "stem": "large", "norm": "group"}, (2, 64, 60, 3)),
    "vit cls exact": ("vit", {"patch": 4, "width": 12, "depth": 2, "heads": 3}, (2, 8, 12, 3)),
    "vit mean tanh": (
        "vit",
        {"patch": 2, "width": 8, "depth": 1, "heads": 2, "pool": "mean", "gelu": "tanh"},
        (2, 6, 6, 3),
    ),
    "lite batch": (
        "efficientnet_lite",
        {"stages": ((3, 1, 1, 8, 1), (5, 2, 4, 12, 2)), "stem": 8, "features": 24},
        (2, 16, 18, 3),
    ),
}
