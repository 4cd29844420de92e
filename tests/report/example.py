"""A made-up Analysis with all that a real one may hold: failures, gaps, controls, claims of each kind."""

import dataclasses
from typing import Any

import numpy as np

from mtl.report.analysis import Analysis, Cell, Cost, Crossover, Scores

SIZES = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
CONTROLS = ("random_probe", "multitask_examples")
REPLICATES = 20
# regime: accuracy at the fewest labels, at the most, examples seen, of these source
REGIMES = {
    "scratch": (0.712, 0.968, 9_600, 0),
    "random_probe": (0.681, 0.874, 9_600, 0),
    "linear_probe": (0.846, 0.931, 28_800, 19_200),
    "finetune": (0.829, 0.975, 28_800, 19_200),
    "lp_ft": (0.841, 0.976, 28_800, 19_200),
    "gradual": (0.838, 0.972, 28_800, 19_200),
    "multitask": (0.801, 0.964, 57_600, 0),
    "multitask_finetune": (0.815, 0.971, 48_000, 38_400),
    "multitask_examples": (0.716, 0.967, 28_800, 0),
}
NASTY = (
    "a|b",
    "a_b & 50%",
    "<script>alert(1)</script>",
    "two\nlines",
    "[x](javascript:0)",
    "$a$ \\b {c} #1 ~^",
)


def make_cell(mean: float, base: float, half: float, **changes: Any) -> Cell:
    gain = mean - base
    significant = abs(gain) > 1.6 * half
    claim = ("gain" if gain > 0 else "harm") if significant else "inconclusive"
    if abs(gain) + half < 0.02:
        claim = "equivalent"
    values: dict[str, Any] = {
        "mean": mean, "low": mean - half, "high": mean + half * 0.9, "replicates": REPLICATES, "missing": 0,
        "failed": 0, "gain": gain, "gain_low": gain - half * 0.8, "gain_high": gain + half * 0.8,
        "p": 0.001 if significant else 0.3, "p_holm": 0.012 if significant else 1.0, "claim": claim,
        "p_margin": 0.001 if claim == "equivalent" else 0.3, "p_margin_holm": 0.012 if claim == "equivalent" else 1.0,
        "best": False, "not_worse": False, "unconverged": 2, "overfitted": 0, "chosen": 0.01,
    }  # fmt: skip
    return Cell(**(values | changes))


def nothing(**changes: Any) -> Cell:
    nan = float("nan")
    return make_cell(
        nan,
        nan,
        nan,
        replicates=0,
        missing=REPLICATES,
        p=nan,
        p_holm=nan,
        p_margin=nan,
        p_margin_holm=nan,
        claim="",
        chosen=nan,
        **changes,
    )


def example(names: dict[str, str] | None = None, sweep: str = "even_from_identity", holes: bool = True) -> Analysis:
    """The example; ``names`` renames regimes, ``holes`` says whether cells are missing or failed."""
    rng = np.random.default_rng(7)
    names = {regime: (names or {}).get(regime, regime) for regime in REGIMES}
    sizes = len(SIZES)
    # Curves rise like 1 - exp: quickly over the first sizes, as learning curves do.
    rise = 1 - np.exp(-2.4 * np.linspace(0, 1, sizes))
    rise /= rise[-1]
    means = np.array([low + (high - low) * rise for low, high, *_ in REGIMES.values()])
    means += rng.normal(0, 0.003, means.shape)
    halves = np.linspace(0.022, 0.006, sizes)
    cells = {
        names[regime]: {
            size: make_cell(float(means[g, s]), float(means[0, s]), float(halves[s])) for s, size in enumerate(SIZES)
        }
        for g, regime in enumerate(REGIMES)
    }
    nan = float("nan")
    for size, cell in cells[names["scratch"]].items():
        cells[names["scratch"]][size] = dataclasses.replace(
            cell, gain=nan, gain_low=nan, gain_high=nan, p=nan, p_holm=nan, p_margin=nan, p_margin_holm=nan, claim=""
        )
    for s, size in enumerate(SIZES):
        contenders = [r for r in REGIMES if r not in CONTROLS]
        best = max(contenders, key=lambda r: means[list(REGIMES).index(r), s])
        for regime in contenders:
            cell = cells[names[regime]][size]
            cells[names[regime]][size] = dataclasses.replace(
                cell,
                best=regime == best,
                not_worse=cells[names[best]][size].mean - cell.mean < 0.5 * float(halves[s]),
            )
    if holes:
        cells[names["gradual"]][10.0] = nothing(failed=REPLICATES)
        cells[names["multitask_finetune"]][500.0] = nothing()
        partial = cells[names["multitask"]][50.0]
        cells[names["multitask"]][50.0] = dataclasses.replace(partial, replicates=12, missing=8, failed=3)
    missing = np.array([[cells[names[r]][s].missing for s in SIZES] for r in REGIMES])
    failed = np.array([[cells[names[r]][s].failed for s in SIZES] for r in REGIMES])
    values = np.repeat(means[:, :, None, None], 2, axis=2) + np.zeros((1, 1, 2, 3))
    scores = Scores(
        study="digits",
        sweep=sweep,
        question="With n labelled scans of even/odd digits: start from a net trained to name digits, train "
        "both at once, or train from scratch?",
        notes=(
            "Source phase 600 steps, target phase 300, batch 32 drawn with replacement.",
            "Joint phases draw batches per task.",
            "Each regime's learning rate is chosen within each replicate by validation log loss; the "
            "validation labels are charged to n.",
        ),
        metric="accuracy",
        higher_is_better=True,
        unit=100.0,
        regimes=tuple(names.values()),
        sizes=SIZES,
        replicates=tuple(range(REPLICATES)),
        values=values,
        missing=missing,
        failed=failed,
        chosen=np.full((len(REGIMES), sizes, REPLICATES), 0.01),
        baseline=names["scratch"],
        margin=0.02,
        cost={
            names[regime]: Cost(
                float(seen), 1.31e6 * seen, 0.11 + seen * 8.7e-6, float(source), updates=seen / 32, rows=700.0 + source
            )
            for regime, (_, _, seen, source) in REGIMES.items()
        },
        controls=tuple(names[r] for r in CONTROLS),
    )
    return Analysis(
        scores=scores,
        cells=cells,
        crossovers=(
            Crossover(names["linear_probe"], names["finetune"], 61.0, 188.0, (50.0, 100.0), 0.94),
            Crossover(names["linear_probe"], names["scratch"], 142.0, 305.0, (100.0, 200.0), 0.88),
        ),
        verdict=(
            "With 10 labels linear_probe beats scratch by +13.4 points [11.6, 15.2]; fine-tuning overtakes "
            "it between 50 and 100 labels.",
            "From 200 labels on, nothing is shown to beat scratch by more than the margin of 2 points.",
            "Training jointly is never the best choice here.",
        ),
        warnings=(
            "gradual at n=10: all 20 trials failed.",
            "Not converged, as half of the replicates or more were at their best at the last evaluation: linear_probe "
            "with 10 labels. A larger budget may do better.",
        ),
        resamples=10_000,
    )


def example_trials(count: int = 600, sweep: str = "even_from_identity") -> list[dict[str, Any]]:
    """Rows for the page's trial table."""
    rng = np.random.default_rng(3)
    regimes, trials = list(REGIMES), []
    for i in range(count):
        regime = regimes[i % len(regimes)]
        failed = i % 97 == 5
        trials.append(
            {
                "sweep": sweep,
                "regime": regime,
                "n": int(SIZES[i // 9 % 6]),
                "seed": i // 54 % 20,
                "learning_rate": [0.001, 0.003, 0.01, 0.03][i // 1080 % 4],
                "status": "diverged" if failed else "done",
                "validation": float("nan") if failed else float(rng.gamma(2, 0.1)),
                "test": None if failed else float(rng.uniform(0.7, 0.98)),
                "examples": REGIMES[regime][2],
                "seconds": float(rng.gamma(4, 0.05)),
                "hash": f"{i * 2654435761 % 2**48:012x}",
            }
        )
    return trials
