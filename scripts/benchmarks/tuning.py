"""What choosing a rate from few labels loses, by the way that validation chooses.

  PYTHONPATH=scripts:. python -m benchmarks.tuning WORKDIR [--select last] [--replicates 20] [--sizes 10,20,50]

Digits, with the rates of ``configs/digits.py``. Of each way, regime and n: the mean test accuracy of what was chosen,
and its regret, the mean difference to the best candidate *on test*, which nobody can choose. Candidates' test scores
are looked at here, after the choice, to judge the ways of choosing; no study may.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl import run_sweep
from mtl.config import load
from mtl.sweep import product, sweep
from mtl.sweep.store import Workdir

CONFIG = str(Path(__file__).resolve().parents[2] / "configs" / "digits.py")

#: What each way trains: its changes of the config.
WAYS: dict[str, Mapping[str, Any]] = {
    "one split": {},
    "5 folds": {"data.folds": 5},
    "5 folds, twice": {"data.folds": 5, "data.fold_repeats": 2},
}


def scores(workdir: Workdir, rates: list[float], name: str) -> tuple[np.ndarray, np.ndarray, list[tuple[str, int]]]:
    """Return (validation scores, test accuracies) [cells, replicates, rates], NaN where diverged, and the cells."""
    found: dict[tuple[str, int], dict[int, dict[float, tuple[float, float]]]] = {}
    entry = workdir.study()["sweeps"][name]
    for trial in entry["trials"]:
        result, c = workdir.result(trial["hash"]), trial["changes"]
        assert result is not None
        done = result["status"] == "done" and result["val_score"] is not None
        pair = (result["val_score"], result["test"]["even"]["accuracy"]) if done else (np.nan, np.nan)
        found.setdefault((c["regime"], c["data.target_size"]), {}).setdefault(c["seed"], {})[c["lr"]] = pair
    pairs = np.asarray([[[by[rate] for rate in rates] for by in cell.values()] for cell in found.values()])
    return pairs[..., 0], pairs[..., 1], list(found)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description="Regret of the chosen rate, by the way it is chosen.")
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--select", default="best", choices=("best", "last"))
    parser.add_argument("--regimes", default="scratch,finetune,multitask")
    parser.add_argument("--sizes", default="10,20,50")
    parser.add_argument("--replicates", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    rates = list(load(CONFIG)[1].RATES)
    entries = product(
        sweep("regime", args.regimes.split(",")),
        sweep("data.target_size", [int(n) for n in args.sizes.split(",")]),
        sweep("seed", range(args.replicates)),
        sweep("lr", rates),
    )
    print("| way | regime | n | chosen % | regret, points | standard error |\n|:--|:--|--:|--:|--:|--:|")
    for way, changes in WAYS.items():
        about = {**changes, "select": args.select, "save_model": False}
        folder = args.workdir / f"{args.select}-{way.replace(' ', '-').replace(',', '')}"
        run_sweep(CONFIG, product([about], entries), folder, name="tuning", jobs=args.jobs, quiet=True)
        val, test, cells = scores(Workdir(folder), rates, "tuning")
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
