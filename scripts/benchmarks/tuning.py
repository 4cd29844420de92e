"""What choosing a rate from few labels loses, by the way that validation chooses.

  PYTHONPATH=scripts:. python -m benchmarks.tuning WORKDIR [--study digits|latent|mnist|tox21] [--replicates 20]

Of each way, regime and n: the mean test score of what was chosen, and its regret, the mean difference to the best
candidate *on test*, which nobody can choose. Candidates' test scores are looked at here, after the choice, to judge the
ways of choosing; no study may.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl import run_sweep
from mtl.sweep import product, sweep
from mtl.sweep.store import Workdir

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

#: What each study is: its config file, what is changed of it, and its rates.
STUDIES: dict[str, tuple[str, Mapping[str, Any], tuple[float, ...]]] = {
    "digits": ("digits", {}, (1e-3, 3e-3, 1e-2, 3e-2)),
    "latent": ("latent", {}, (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)),
    # Is a digit even? The source is its name, on other images; by the perceptron and the rates of digits.
    "mnist": (
        "digits",
        {"data.name": "mnist", "data.source": ("digit",), "data.source_size": 1100, "data.source_val_size": 100}
        | {"data.target_pool": 1000, "data.test_size": 2000, "tune.source_lr": (1e-4, 1e-3, 1e-2)},
        (3e-4, 1e-3, 3e-3, 1e-2),
    ),
    # One assay from another, the two with the most positives; other molecules.
    "tox21": (
        "tox21",
        {"data.targets": (), "data.target": "SR-MMP", "data.source": ("NR-AhR",), "data.target_pool": 1000}
        | {"data.source_size": 2000, "data.source_val_size": 200, "data.rows": "disjoint", "data.val_fraction": 0.2}
        | {"source.total_steps": 240, "target.total_steps": 240},
        (3e-4, 1e-3, 3e-3, 1e-2),
    ),
}

#: What each way trains: its changes of the config.
WAYS: dict[str, Mapping[str, Any]] = {
    "one split": {},
    "5 folds": {"data.folds": 5},
    "5 folds, twice": {"data.folds": 5, "data.fold_repeats": 2},
}


def scores(workdir: Workdir, rates: list[float], name: str) -> tuple[np.ndarray, np.ndarray, list[tuple[str, int]]]:
    """Return (validation scores, test scores) [cells, replicates, rates], NaN where there is none, and the cells."""
    found: dict[tuple[str, int], dict[int, dict[float, tuple[float, float]]]] = {}
    entry = workdir.study()["sweeps"][name]
    for trial in entry["trials"]:
        result, c = workdir.result(trial["hash"]), trial["changes"]
        assert result is not None
        pair = (np.nan, np.nan)
        if result["status"] == "done" and result["val_score"] is not None:
            task = result["config"]["data"]["target"]
            metric = next(t["metric"] for t in result["config"]["tasks"] if t["name"] == task)
            pair = (result["val_score"], result["test"][task][metric])
        found.setdefault((c["regime"], c["data.target_size"]), {}).setdefault(c["seed"], {})[c["lr"]] = pair
    pairs = np.asarray([[[by[rate] for rate in rates] for by in cell.values()] for cell in found.values()])
    return pairs[..., 0], pairs[..., 1], list(found)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description="Regret of the chosen rate, by the way it is chosen.")
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--study", default="digits", choices=STUDIES)
    parser.add_argument("--select", default="best", choices=("best", "last"))
    parser.add_argument("--regimes", default="scratch,finetune,multitask")
    parser.add_argument("--sizes", default="10,20,50")
    parser.add_argument("--replicates", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    file, own, rates = STUDIES[args.study]
    config = str(CONFIGS / f"{file}.py")
    entries = product(
        sweep("regime", args.regimes.split(",")),
        sweep("data.target_size", [int(n) for n in args.sizes.split(",")]),
        sweep("seed", range(args.replicates)),
        sweep("lr", rates),
    )
    print("| way | regime | n | chosen % | regret, points | standard error |\n|:--|:--|--:|--:|--:|--:|")
    for way, changes in WAYS.items():
        about = {**own, **changes, "select": args.select, "save_model": False}
        folder = args.workdir / f"{args.study}-{args.select}-{way.replace(' ', '-').replace(',', '')}"
        run_sweep(config, product([about], entries), folder, name="tuning", jobs=args.jobs, quiet=True)
        val, test, cells = scores(Workdir(folder), list(rates), "tuning")
        picks = {way: np.nanargmin(np.where(np.isnan(val), np.inf, val), axis=-1)}
        if not changes:  # For reference: it goes by the labels of other replicates too.
            shared = np.nanargmin(np.nanmean(val, axis=1), axis=-1)
            picks["one split, a rate for all replicates"] = np.broadcast_to(shared[:, None], val.shape[:2])
        for name, pick in picks.items():
            chosen = np.take_along_axis(test, pick[..., None], axis=-1)[..., 0]
            regret = np.nanmax(test, axis=-1) - chosen
            for (regime, n), score, lost in zip(cells, chosen, regret, strict=True):
                error = lost.std(ddof=1) / np.sqrt(len(lost))
                row = (name, regime, n, f"{100 * score.mean():.1f}", f"{100 * lost.mean():.2f}", f"{100 * error:.2f}")
                print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
