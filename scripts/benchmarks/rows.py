"""The rows of the table: what is compared, and the ratio that is aimed at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import reading, sweeps
from benchmarks.cases import CASES
from benchmarks.rounds import Order, Timed, timed


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
      title: what is compared.
      threads: that each side had; 0 where that says nothing.
      ratio: (lower quartile, median, upper quartile) over rounds; one number three times where it is counted.
      target: that it is held against.
      least: whether the target is the least that will do (otherwise the most).
      ours, theirs: both sides in their own unit, as text.
      figures: everything measured, for ``--json``.
      note: what the numbers do not say by themselves.
    """

    title: str
    threads: int
    ratio: tuple[float, float, float]
    target: float
    least: bool
    ours: str
    theirs: str
    figures: Mapping[str, Any]
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the median meets the target."""
        return self.ratio[1] >= self.target if self.least else self.ratio[1] <= self.target


@dataclasses.dataclass(frozen=True)
class Run:
    """How rows are measured.

    Attributes:
      rounds: of each comparison.
      threads: numbers of threads to measure at.
      peaks: by number of threads, (FLOP/s, bytes/s) of the machine; empty if not measured.
    """

    rounds: int
    threads: Sequence[int]
    peaks: Mapping[int, tuple[float, float]]


def in_words(seconds: float) -> str:
    """Return seconds as people read them."""
    if seconds < 1e-3:
        return f"{1e6 * seconds:.0f} µs"
    return f"{1e3 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _compared(
    title: str, found: Timed, ours: str, theirs: str, threads: int, target: float, run: Run, inverse: bool = False
) -> Row:
    """Return the row of two sides: theirs over ours, at least the target; or ours over theirs, at most."""
    ratio = found.ratio(ours, theirs) if inverse else found.ratio(theirs, ours)
    texts = [in_words(found.median(side)) + _share(found, side, ours, run, threads) for side in (ours, theirs)]
    figures = {"seconds": found.seconds, "about": found.about}
    return Row(title, threads, ratio, target, not inverse, texts[0], texts[1], figures)


def _share(found: Timed, side: str, ours: str, run: Run, threads: int) -> str:
    """Return what share of the machine's arithmetic a side reaches, both by the work that ours needs."""
    flops = found.about[ours].get("flops")
    if not flops or threads not in run.peaks:
        return ""
    return f" ({100 * flops / found.median(side) / run.peaks[threads][0]:.0f} %)"


def steps(case: str, title: str, target: float, fused: bool = False) -> Callable[[Run], list[Row]]:
    """Return the rows of a training step against PyTorch's."""

    def rows(run: Run) -> list[Row]:
        found = []
        for threads in run.threads:
            devices = threads if CASES[case].spread else 1
            how = f", with --mesh=data:{devices}" if devices > 1 else ""
            sides = {
                "ours": Order("engine", options={"case": case, "devices": devices}),
                "pytorch": Order("pytorch_steps", options={"case": case}),
            }
            if fused:
                sides["fused"] = Order("pytorch_steps", options={"case": case, "fused": True})
            times = timed(sides, threads, run.rounds, CASES[case].seconds)
            found.append(_compared(f"{title}, PyTorch over ours{how}", times, "ours", "pytorch", threads, target, run))
            if fused:
                also = f"{title}, PyTorch with its fused Adam over ours"
                found.append(_compared(also, times, "ours", "fused", threads, target, run))
        return found

    return rows


def compiled(run: Run) -> list[Row]:
    """Return the rows of a training step against PyTorch's through ``torch.compile``: what a user would pick today."""
    found = []
    for case, title in (("mlp", "MLP"), ("cnn", "CNN"), ("resnet", "ResNet-18"), ("vit", "ViT-Ti/4")):
        sides = {
            "ours": Order("engine", options={"case": case}),
            "compiled": Order("pytorch_steps", options={"case": case, "compiled": True, "fused": True}),
        }
        times = timed(sides, 1, run.rounds, CASES[case].seconds)
        text = f"{title} step, PyTorch compiled (fused Adam) over ours"
        row = _compared(text, times, "ours", "compiled", 1, 1.0, run)
        ours, theirs = (times.about[side]["compile"] for side in ("ours", "compiled"))
        note = f"{title}: ours takes {ours:.1f} s to compile, torch.compile {theirs:.1f} s."
        found.append(dataclasses.replace(row, note=note))
    return found


def optimizers(run: Run) -> list[Row]:
    """Return the rows of other optimizers and of a balancer against Adam with equal weights."""
    limits = {"adamw": 1.1, "lion": 1.1, "lamb": 1.5}
    sides = {name: Order("engine", options={"case": "mlp", "optimizer": name}) for name in ("adam", *limits)}
    sides["uncertainty"] = Order("engine", options={"case": "mlp", "balancer": "uncertainty"})
    times = timed(sides, 1, run.rounds)
    title = "MLP step, {} over Adam"
    found = [
        _compared(title.format(name), times, name, "adam", 1, limit, run, inverse=True)
        for name, limit in limits.items()
    ]
    text = "MLP step, uncertainty weighting over equal weights"
    return [*found, _compared(text, times, "uncertainty", "adam", 1, 1.1, run, inverse=True)]


def adapters(run: Run) -> list[Row]:
    """Return the row of LoRA on a ViT's attention against fine-tuning all of it."""
    sides = {
        "lora": Order("engine", options={"case": "vit", "lora": ".*/(qkv|out)"}),
        "all": Order("engine", options={"case": "vit"}),
    }
    times = timed(sides, 1, run.rounds, CASES["vit"].seconds)
    title = "ViT-Ti/4 step, LoRA (rank 8, attention) over full fine-tuning"
    return [_compared(title, times, "lora", "all", 1, 0.78, run, inverse=True)]


def many_tasks(run: Run) -> list[Row]:
    """Return the rows of 617 binary tasks on a trunk against ten: time by their FLOPs, and time to compile."""
    sides = {"617": Order("engine", options={"case": "mlp617"}), "10": Order("engine", options={"case": "mlp"})}
    times = timed(sides, 1, run.rounds)
    work = times.about["617"]["flops"] / times.about["10"]["flops"]
    row = _compared("MLP step a FLOP, 617 binary tasks over 10", times, "617", "10", 1, 1.2, run, inverse=True)
    row = dataclasses.replace(
        row, ratio=tuple(r / work for r in row.ratio), note=f"617 tasks take {work:.1f} x the FLOPs."
    )
    ours, theirs = (times.about[side]["compile"] for side in ("617", "10"))
    title = "MLP step, seconds to compile, 617 binary tasks over 10"
    return [row, Row(title, 1, (ours / theirs,) * 3, 1.2, False, f"{ours:.1f} s", f"{theirs:.1f} s", times.about)]


def handwritten(run: Run) -> list[Row]:
    """Return the rows of the engine against a hand-written loop."""
    found = []
    for case, title in (("mlp", "MLP step"), ("cnn", "CNN step")):
        sides = {"ours": Order("engine", options={"case": case}), "hand": Order("handwritten", options={"case": case})}
        times = timed(sides, 1, 2 * run.rounds)
        text = f"{title}, the engine over a hand-written JAX loop"
        found.append(_compared(text, times, "ours", "hand", 1, 1.03, run, inverse=True))
    return found


def masks(run: Run) -> list[Row]:
    """Return the row of the masked loss against none, all labels present."""
    options = {"case": "mlp", "missing": 0.0}
    sides = {"masked": Order("engine", options=options), "plain": Order("engine", options={**options, "masks": False})}
    times = timed(sides, 1, 3 * run.rounds)
    return [_compared("MLP step, masked loss over a plain mean", times, "masked", "plain", 1, 1.02, run, inverse=True)]


def depthwise(run: Run) -> list[Row]:
    """Return the row of depthwise convolution by its kernel against XLA's own."""
    sides = {
        "twin": Order("engine", options={"case": "lite"}),
        "xla": Order("engine", options={"case": "lite", "xlas_depthwise": True}),
    }
    times = timed(sides, 1, min(3, run.rounds))  # XLA's takes many seconds a step.
    title = "EfficientNet-Lite0 at 64 px, XLA's depthwise convolution over ours"
    return [_compared(title, times, "twin", "xla", 1, 3.0, run)]


def foreign(run: Run) -> list[Row]:
    """Return the row of a network of somebody else's against ours of the same layers."""
    sides = {name: Order("engine", options={"case": name}) for name in ("foreign", "cnn")}
    times = timed(sides, 1, run.rounds)
    title = "CNN step, as somebody else writes it in NNX, over ours"
    return [_compared(title, times, "foreign", "cnn", 1, 1.2, run, inverse=True)]


def probe(run: Run) -> list[Row]:
    """Return the row of a linear probe with cached features against fine-tuning."""
    sides = {
        "probe": Order("engine", options={"case": "cnn", "regime": "linear_probe"}),
        "finetune": Order("engine", options={"case": "cnn", "regime": "finetune"}),
        "features": Order("engine", "make_features", {"case": "cnn"}),
    }
    times = timed(sides, 1, run.rounds)
    epoch = CASES["cnn"].rows / CASES["cnn"].batch
    once = times.median("features") / (epoch * times.median("finetune"))
    note = f"The probe's features, computed once for {once:.2f} epochs of fine-tuning, are left out of its row."
    row = _compared("CNN epoch, fine-tuning over a linear probe", times, "probe", "finetune", 1, 20.0, run)
    return [dataclasses.replace(row, note=note)]


def sweep(run: Run) -> list[Row]:
    """Return the row of a sweep against one PyTorch process a trial."""
    found = sweeps.trials_per_minute()
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found["parts"].items())
    ratio = float(found["ratio"])
    ours, theirs = (f"{found[f'{side}_per_minute']:.0f} a minute" for side in ("ours", "theirs"))
    note = f"The sweep's {found['ours_seconds']:.1f} s: {parts}. PyTorch's rate is by {found['theirs_trials']} trials."
    title = f"Trials a minute: a sweep of {found['ours_trials']} from nothing over a PyTorch process a trial"
    return [Row(title, 2, (ratio,) * 3, 40.0, True, ours, theirs, found, note)]


def sharing(run: Run) -> list[Row]:
    """Return the rows of shared phases: steps counted, against the closed form and without sharing."""
    rows = []
    for name, found in sweeps.shared_steps().items():
        exact, ratio = found["steps"] / found["closed_form"], found["unshared"] / found["steps"]
        ours, closed = f"{found['steps']:,} steps", f"{found['closed_form']:,} steps"
        title = f"Digits study, {name}: steps, over the closed form"
        rows.append(Row(title, 0, (exact,) * 3, 1.0, False, ours, closed, found))
        title, theirs = f"Digits study, {name}: steps without sharing, over with", f"{found['unshared']:,} steps"
        rows.append(Row(title, 0, (ratio,) * 3, 3.0 if "alone" in name else 1.0, True, ours, theirs, found))
    return rows


def readers(run: Run) -> list[Row]:
    """Return the rows of reading a finished study of 5,000 trials: processor seconds."""
    rows = []
    for name, found in reading.reading(run.rounds).items():
        low, middle, high = map(float, np.quantile(found["then"], [0.25, 0.5, 0.75]))
        first = f"{found['first']:.1f} s the first time"
        rows.append(Row(f"{name} of 5,000 trials: seconds", 1, (low, middle, high), 2.0, False, first, "", found))
    return rows


def quickstart(run: Run) -> list[Row]:
    """Return the rows of the main study in a fresh work directory."""
    found = sweeps.quickstart()
    rows = []
    for state, target in (("cold", 60.0), ("warm", 40.0)):
        seconds = found[state]
        title = f"Main study, {state} compilation cache: seconds"
        rows.append(Row(title, 2, (seconds,) * 3, target, False, f"{seconds:.1f} s", "", found))
    return rows


#: By the name that ``--only`` takes.
ROWS: dict[str, Callable[[Run], list[Row]]] = {
    "mlp": steps("mlp", "MLP step, 10 masked binary tasks", 6.0, fused=True),
    "cnn": steps("cnn", "CNN step, 28×28, batch 128", 1.3),
    "resnet": steps("resnet", "ResNet-18 step, 32×32, batch 64", 1.1),
    "vit": steps("vit", "ViT-Ti/4 step, 32×32, batch 64", 1.1),
    "compiled": compiled,
    "optimizers": optimizers,
    "adapters": adapters,
    "tasks": many_tasks,
    "depthwise": depthwise,
    "foreign": foreign,
    "sweep": sweep,
    "probe": probe,
    "hand": handwritten,
    "mask": masks,
    "sharing": sharing,
    "reading": readers,
    "quickstart": quickstart,
}


def peaks(threads: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Return the machine's best (FLOP/s, bytes/s) by number of threads: of PyTorch's and XLA's product, the better."""
    found = {}
    for n in threads:
        orders = {
            "pytorch": Order("peak", "make_product"),
            "xla": Order("peak_xla", "make_product"),
            "copy": Order("peak", "make_copy"),
        }
        times = timed(orders, n, 5)
        flops = max(times.about[side]["flops"] / min(times.seconds[side]) for side in ("pytorch", "xla"))
        found[n] = (flops, times.about["copy"]["bytes"] / min(times.seconds["copy"]))
    return found
