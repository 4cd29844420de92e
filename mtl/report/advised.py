"""Which trained networks a study advises: those of the row to take at the largest size, a replicate each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.regimes import REFERENCES
from mtl.report.analysis import Analysis
from mtl.report.picked import picked
from mtl.report.publish import analyses_of
from mtl.report.targets import Targets
from mtl.sweep.documents import StoreError
from mtl.sweep.store import Workdir
from mtl.tasks import suggest

if TYPE_CHECKING:
    from mtl.sweep.replicates import Replicates


@dataclasses.dataclass(frozen=True)
class Advised:
    """The trials whose networks predict.

    Attributes:
      trials: ``{task: directories}``, one a replicate; of one trial that was given itself, under an empty name.
      recipe: what they are, in words.
    """

    trials: Mapping[str, tuple[Path, ...]]
    recipe: str


def advised(run: str | Path, sweep: str = "", regime: str = "") -> Replicates:
    """Return the networks that a run comes to, ready to predict.

    Args:
      run, sweep, regime: as in ``advised_trials``.

    Raises:
      StoreError: as there.
      CheckpointError: for a model that cannot be read.
    """
    from mtl.sweep.replicates import load_replicates  # Here: it imports JAX, which those who read results do without.

    found = advised_trials(run, sweep, regime)
    return load_replicates(found.trials, found.recipe)


def advised_trials(run: str | Path, sweep: str = "", regime: str = "") -> Advised:
    """Return the trials that a run comes to.

    Args:
      run: a trial's directory, or a work directory: of its sweep the row that the decision table says to take at the
        largest size, with the candidate that validation chose in each replicate; of one that holds no sweep and one
        trial, that trial.
      sweep: of several; the first by default.
      regime: another row of the table.

    Raises:
      StoreError: for what is neither, and a row of which no model is kept.
    """
    path = Path(run)
    if (path / "model.safetensors").is_file():
        return Advised({"": (path,)}, f"trial {path.name}")
    workdir = Workdir(path)
    sweeps = workdir.study()["sweeps"]
    if not sweeps:
        alone = sorted(file.parent for file in (path / "trials").glob("*/model.safetensors"))
        if len(alone) != 1:
            raise StoreError(
                f"{path} holds no sweep and {len(alone)} trained trials: give the directory of one, {path}/trials/…"
            )
        return Advised({"": (alone[0],)}, f"trial {alone[0].name}")
    name = sweep or next(iter(sweeps))
    if name not in sweeps:
        raise StoreError(f"--sweep={name}: {path} has no such sweep: {suggest(name, sweeps)}")
    (analysis,) = analyses_of(workdir, [name])
    chosen = _chosen(analysis, regime)
    found: dict[str, tuple[Path, ...]] = {}
    trials = picked(workdir, sweeps[name])
    for task, (row, size) in chosen.items():
        if row in REFERENCES:
            others = ", ".join(r for r in analysis.scores.regimes if r not in REFERENCES)
            raise StoreError(
                f"{name}: {row} is to be taken, a model of scikit-learn, of which none is kept: --regime=NAME predicts "
                f"by the networks of another row, one of {others}"
            )
        own = [t for t in trials if (t.row, t.size) == (row, size) and t.target in ("", task)]
        if not own:
            raise StoreError(f"{name}: {row} has no trial at {size:g} that ended: run `mtl sweep` again")
        found[task] = tuple(workdir.trial(t.digest) for t in own)
    rows = sorted({f"{row} at {size:g}" for row, size in chosen.values()})
    count = max(map(len, found.values()))
    return Advised(found, f"{', '.join(rows)}, {count} replicate{'s' if count > 1 else ''} of {name}")


def _chosen(analysis: Analysis | Targets, regime: str) -> dict[str, tuple[str, float]]:
    """Return ``{task: (row, size)}``."""
    scores = analysis.scores
    if regime and regime not in scores.regimes:
        raise StoreError(f"--regime={regime}: the table has no such row: {suggest(regime, scores.regimes)}")
    each = {scores.task: analysis} if isinstance(analysis, Analysis) else analysis.of
    together = analysis.decisions if isinstance(analysis, Targets) else ()
    found = {}
    for task, own in each.items():
        decisions = [d for d in (together or own.decisions) if d.do]
        if regime:
            found[task] = (regime, max(scores.sizes))
        elif not decisions:
            raise StoreError(f"{scores.sweep}: nothing is advised yet, as nothing was measured: run `mtl sweep` again")
        else:
            last = max(decisions, key=lambda d: d.size)
            found[task] = (last.do, last.size)
    return found
