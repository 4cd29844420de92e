"""Constructed and simulated scores of a sweep."""

from __future__ import annotations

import numpy as np

from mtl.report.analysis import Scores


def scores_of(values: np.ndarray, regimes: tuple[str, ...], sizes: tuple[float, ...] = (), **changes) -> Scores:
    g, s, r, _ = values.shape
    sizes = sizes or (10.0, 20.0, 50.0, 100.0, 200.0, 500.0)[:s]
    absent = np.isnan(values).all(axis=-1).sum(axis=-1)
    parts = {
        "study": "digits",
        "sweep": "even",
        "question": "Does it transfer?",
        "notes": (),
        "metric": "accuracy",
        "higher_is_better": True,
        "unit": 100.0,
        "regimes": regimes,
        "sizes": sizes,
        "replicates": tuple(range(r)),
        "values": values.astype(np.float64),
        "missing": absent,
        "failed": np.zeros((g, s), dtype=int),
        "chosen": np.full((g, s, r), np.nan),
        "baseline": "scratch",
        "margin": 0.02,
        "cost": {},
        "controls": (),
    }
    return Scores(**(parts | changes))


def crossed(rates: np.ndarray, replicates: int = 20, examples: int = 300, seed: int = 0, noise: float = 0.05):
    """Scores whose cell means are near ``rates`` [G, S], with replicates and examples as crossed effects."""
    rng = np.random.default_rng(seed)
    g, s = rates.shape
    shared = rng.normal(0, 0.02, (s, replicates, 1)) + rng.normal(0, 0.1, examples)
    own = rng.normal(0, 0.01, (g, s, replicates, 1)) + rng.normal(0, noise, (g, s, replicates, examples))
    return rates[:, :, None, None] + shared + own


def null_study(rng: np.random.Generator, groups: int, level: np.ndarray, replicates: int, examples: int):
    """0/1 scores of exchangeable regimes: hard and easy images, lucky draws, both shared and own."""
    sizes = len(level)
    image = rng.normal(0, 1, examples) + rng.normal(0, 0.5, (sizes, 1, examples))
    shared = rng.normal(0, 0.25, (sizes, replicates, 1)) + rng.normal(0, 0.5, (sizes, replicates, examples))
    own = rng.normal(0, 0.18, (groups, 1, replicates, 1)) + rng.normal(0, 0.18, (groups, sizes, replicates, 1))
    noise = rng.standard_normal((groups, sizes, replicates, examples), dtype=np.float32) * 0.7
    return (noise + own + (level[:, None, None] + image + shared) > 0).astype(np.float64)
