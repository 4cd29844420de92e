"""The checks: what this device gives, what it is held against, and how far apart they may be.

``python -m accelerating.checks CHECK SETTING`` runs one and prints each row as a line of JSON when it is there. Nothing
but a check's own process, or those that it starts one after the other, uses the device meanwhile.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import sweeps
from benchmarks.cases import CASES
from benchmarks.rounds import ROOT, Order, cores_of, environment, timed
from benchmarks.rows import Row, in_words

#: Products of float32 numbers in full, and as a device rounds them by default: ten bits of a factor on a GPU (TF32),
#: eight on a TPU (bfloat16). JAX reads it from the environment.
PRECISION = "JAX_DEFAULT_MATMUL_PRECISION"
#: Largest differences between a device and the CPU, as parts of a number or of the largest of its array.
PARITY, ROUNDED_PARITY = 1e-4, 2e-2
#: ``vmap`` and ``lax.map`` agree to this after one step.
PACKS = 1e-5
#: Percentage points between a table's means on two devices; seconds that the main study may take.
POINTS, STUDY_SECONDS = 1.0, 150.0


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a check is told.

    Attributes:
      platform: as JAX calls it: ``cpu``, ``gpu``, ``tpu``.
      folder: for what checks leave for one another.
      quick: whether models are small and few.
    """

    platform: str
    folder: str
    quick: bool

    @property
    def cases(self) -> tuple[str, ...]:
        """What is trained."""
        return ("cnn", "small_vit") if self.quick else ("mlp", "cnn", "resnet", "vit")


def most(title: str, difference: float, limit: float, ours: str, theirs: str, **figures: Any) -> Row:
    """Return the row of what must be at most a limit."""
    return Row(title, 0, (difference,) * 3, limit, False, ours, theirs, figures)


def kernels(setting: Setting) -> Iterator[Row]:
    """A step is traced with the CPU's kernels on a CPU, and with none of them elsewhere."""
    from accelerating.kernels import traced

    for case in setting.cases:
        found = traced(case)
        wrong = not found if setting.platform == "cpu" else len(found)
        title, theirs = f"{case}: kernels of the CPU in a step", "some" if setting.platform == "cpu" else "none"
        yield most(title, float(wrong), 0, f"{len(found)} functions", theirs, functions=found)


def parity(setting: Setting) -> Iterator[Row]:
    """A few trained steps come to what they come to on the CPU, with products in full and as they are by default."""
    reference = _started(setting, "reference", {"JAX_PLATFORMS": "cpu"})
    ways = {"full": ({PRECISION: "highest"}, PARITY, "in full"), "default": ({}, ROUNDED_PARITY, "by default")}
    if setting.platform == "cpu":  # Where both are the same.
        ways = {"default": ({}, PARITY, "in full")}
    for name, (variables, _, _) in ways.items():
        _ended(_started(setting, name, variables))
    _ended(reference)
    for name, (_, limit, how) in ways.items():
        for case in setting.cases:
            ours, theirs = (_arrays(setting, side, case) for side in (name, "reference"))
            gaps = {kind: _gap(ours[kind], theirs[kind]) for kind in ours}
            gap = max(gaps["losses"], gaps["metrics"])  # Weights that matter little may differ by a rate a step.
            texts = [f"loss {a['losses'][0, -1]:.6f}, test {a['metrics'][0, 0]:.6f}" for a in (ours, theirs)]
            yield most(f"{case}: training against the CPU, products {how}", gap, limit, *texts, **gaps)


def bits(setting: Setting) -> Iterator[Row]:
    """The same trial, in another process and compiled anew, has the same bits."""
    for name in ("default", "again"):
        if not all(_file(setting, name, case).exists() for case in setting.cases):
            _ended(_started(setting, name, {}))
    for case in setting.cases:
        once, again = (_arrays(setting, name, case) for name in ("default", "again"))
        numbers = sum(a.size for a in once.values())
        other = sum(int((once[k].view(np.uint8) != again[k].view(np.uint8)).sum()) for k in once)
        yield most(f"{case}: bytes that differ when run again", other, 0, f"{other}", f"{numbers:,} numbers")


def packs(setting: Setting) -> Iterator[Row]:
    """Lanes side by side, on all devices too, come to what they come to one after the other, and fit into memory.

    That is seen after one step, with products in full and by plain gradient descent: Adam's first step is the rate
    times a sign, which hides small differences and makes large ones of the smallest.
    """
    import jax

    from accelerating.training import trained
    from mtl.train.compiled import Compiled
    from mtl.train.placement import MAP, VMAP, Placement, memory_limit

    jax.config.update("jax_default_matmul_precision", "highest")
    own, needed = Compiled.memory, [0]

    def told(self: Compiled, *args: Any) -> int:
        needed.append(own(self, *args))
        return needed[-1]

    Compiled.memory = told  # type: ignore[method-assign]
    count = jax.device_count()
    ways = [VMAP] if count == 1 else [VMAP, Placement("vmap", trial=count), Placement("vmap", data=count)]
    for case, lanes in {"small_vit": 4}.items() if setting.quick else {"mlp": 256, "cnn": 64, "vit": 16}.items():

        def run(how: Placement, case: str = case, lanes: int = lanes) -> dict[str, np.ndarray]:
            folder = Path(setting.folder) / "packs" / f"{case} {how}"
            changes = {"optimizer.name": "sgd", "lr": 0.1, "batch_size": 8 * count}
            return trained(case, folder, changes, 1, range(lanes), how)

        theirs = run(MAP)
        for how in ways:
            limit, ours = memory_limit(), run(how)
            gaps = {kind: _gap(ours[kind], theirs[kind]) for kind in ours}
            yield most(f"{case}: {lanes} lanes, {how} against map", max(gaps.values()), PACKS, str(how), "map", **gaps)
            title = f"{case}: {lanes} lanes, {how}: memory by XLA's analysis"
            yield most(title, needed[-1] / limit, 1, _bytes(needed[-1]), _bytes(limit))
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats and "bytes_limit" in stats:
        peak, there = stats["peak_bytes_in_use"], stats["bytes_limit"]
        yield most("packs: most memory in use so far", peak / there, 1, _bytes(peak), _bytes(there), **stats)
    else:
        yield _untold("packs: most memory in use so far", "", "the backend does not tell")


def steps(setting: Setting) -> Iterator[Row]:
    """A step is no slower than PyTorch's on the same device; both in turn, round by round.

    On an accelerator it is ours of two lanes side by side, the fewest that are run there, against PyTorch's of one.
    """
    device = {"cpu": "cpu", "gpu": "cuda"}.get(setting.platform)
    absent = device is None or importlib.util.find_spec("torch") is None
    cores = len(cores_of(os.cpu_count() or 1))
    for case in ("mlp",) if setting.quick else ("mlp", "cnn", "resnet", "vit"):
        kind = "map" if setting.platform == "cpu" else "vmap"
        sides = {"ours": Order("engine", options={"case": case, "kind": kind})}
        if not absent:
            sides["pytorch"] = Order("pytorch_steps", options={"case": case, "device": device})
        found = timed(sides, cores, 3 if setting.quick else 5, CASES[case].seconds)
        ours, title = in_words(found.median("ours")), f"{case}: a step, PyTorch's time over ours"
        if absent:
            yield _untold(title, ours, f"no PyTorch for {setting.platform}")
            continue
        theirs = in_words(found.median("pytorch"))
        yield Row(title, 0, found.ratio("pytorch", "ours"), 1, True, ours, theirs, {"seconds": found.seconds})


def study(setting: Setting) -> Iterator[Row]:
    """The main study runs to its end, in time, and its table has the means that it has on the CPU."""
    folder = Path(setting.folder)
    config = f"--config={ROOT / 'configs' / 'digits.py'}"
    if setting.quick:
        one = ["--config.regime=lp_ft", "--config.data.target_size=50"]
        seconds = sweeps.mtl(["run", config, *one, f"--workdir={folder / 'run'}"], folder / "cache")
        yield most("one trial of the main study: seconds", seconds, STUDY_SECONDS, in_words(seconds), "")
        return
    means = []
    for side in ("here", "cpu"):
        more = []
        if side == "cpu":
            os.environ["JAX_PLATFORMS"], more = "cpu", [f"--jobs={len(cores_of(os.cpu_count() or 1))}"]
        seconds = sweeps.mtl(["sweep", config, f"--workdir={folder / side}", *more], folder / f"cache-{side}")
        means.append(_means(folder / side))
        if side == "here":
            yield most("the main study, nothing compiled: seconds", seconds, STUDY_SECONDS, in_words(seconds), "")
            if setting.platform == "cpu":
                return
    gaps = {cell: abs(means[0][cell] - mean) for cell, mean in means[1].items()}
    worst = max(gaps, key=lambda cell: gaps[cell])
    ours, theirs = (f"{worst}: {found[worst]:.1f} %" for found in means)
    yield most("the main study: points between its means and the CPU's", gaps[worst], POINTS, ours, theirs, **gaps)


def _means(workdir: Path) -> dict[str, float]:
    """Return the mean accuracies of a study's table, by regime and labels, in per cent."""
    import mtl

    found = mtl.results(workdir)
    means = found[found.chosen].groupby(["regime", "data.target_size"])["test_accuracy"].mean()
    return {f"{regime}, n = {n}": 100 * float(mean) for (regime, n), mean in means.items()}


def _started(setting: Setting, name: str, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process that trains the cases."""
    folder = Path(setting.folder) / name
    folder.mkdir(exist_ok=True)
    # Twice the same program says more if it was compiled twice.
    cache = str(Path(setting.folder) / "cache") if setting.quick else "off"
    command = [sys.executable, "-m", "accelerating.training", str(folder), *setting.cases]
    return subprocess.Popen(command, env=environment() | {"MTL_CACHE_DIR": cache} | variables)


def _ended(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise RuntimeError(f"training ended with exit code {process.returncode}")


def _file(setting: Setting, name: str, case: str) -> Path:
    return Path(setting.folder) / name / f"{case}.npz"


def _arrays(setting: Setting, name: str, case: str) -> dict[str, np.ndarray]:
    with np.load(_file(setting, name, case)) as arrays:
        return dict(arrays)


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference, as a part of the largest number if that is above 1; infinite where one is NaN."""
    gap = float(np.max(np.abs(a - b))) / max(1.0, float(np.max(np.abs(b))))
    return gap if math.isfinite(gap) else math.inf


def _untold(title: str, ours: str, why: str) -> Row:
    """Return the row of what there is nothing to hold against."""
    return Row(title, 0, (math.nan,) * 3, math.nan, False, ours, why, {})


def _bytes(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB"


#: By the name that ``--only`` takes: the check, and the seconds that it may take (in full, in its short form).
CHECKS: dict[str, tuple[Callable[[Setting], Iterator[Row]], int, int]] = {
    "kernels": (kernels, 60, 60),
    "parity": (parity, 240, 120),
    "bits": (bits, 120, 60),
    "packs": (packs, 120, 60),
    "steps": (steps, 180, 60),
    "study": (study, 240, 60),
}


def main(name: str, setting: Setting) -> None:
    """Run a check."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Whatever libraries print is no answer.
    for row in CHECKS[name][0](setting):
        print(json.dumps(dataclasses.asdict(row)), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], Setting(**json.loads(sys.argv[2])))
