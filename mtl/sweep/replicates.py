"""Networks of one recipe, a replicate each: what they predict together, and how far they differ."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.data.problems import DataError
from mtl.sweep.new_rows import NewRows, file_rows, frame_rows, task_columns
from mtl.sweep.trained import Trained, load

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True)
class Replicates:
    """Trained networks of one recipe, and what they predict together.

    Attributes:
      networks: ``{task: its networks}``, one a replicate; of a joint network the same for each of its tasks.
      recipe: what they are, in words.
    """

    networks: Mapping[str, tuple[Trained, ...]]
    recipe: str = ""

    @property
    def first(self) -> Trained:
        """One of them: how rows are read is the same for all."""
        return next(iter(self.networks.values()))[0]

    def predict(self, rows: Any) -> pandas.DataFrame:
        """Return what the networks predict of rows: the mean over replicates and its spread.

        Of a task with classes, the class that is likeliest by the mean probability, and that of each class (of a binary
        one, of its positive class), ``ill=yes``; of a regression the number, in the label's own unit. Where there are
        several replicates, ``… std`` is the standard deviation over them. Columns that name rows stand first.

        Args:
          rows: a DataFrame; the path of a file; or inputs as ``mtl.sweep.trained.Trained.predict`` takes them.

        Raises:
          ValueError: for rows that are not like those of the training.
        """
        import pandas as pd

        given = rows if isinstance(rows, NewRows) else self.read(rows)
        if not isinstance(rows, NewRows):
            for sentence in given.told:
                warnings.warn(sentence, stacklevel=2)
        columns: dict[str, Any] = dict(given.names)
        for task, networks in self.networks.items():
            columns |= self._predicted(task, networks, given.x)
        return pd.DataFrame(columns)

    def read(self, rows: Any) -> NewRows:
        """Return the inputs of rows, as ``predict`` takes them.

        Args:
          rows: as there.

        Raises:
          DataError: for rows that are not like those of the training.
        """
        facts, data = self.first.inputs, self.first.trial.config["data"]
        if isinstance(rows, str | Path):
            return file_rows(rows, facts, data)
        if hasattr(rows, "columns") and facts["columns"]:
            return frame_rows(rows, facts, data["options"].get("missing", ()))
        return NewRows(rows)

    def _predicted(self, task: str, networks: Sequence[Trained], x: Any) -> dict[str, np.ndarray]:
        """Return the columns of one task."""
        spec = networks[0].model.task(task)
        if spec.shape:
            raise DataError(
                f'task "{task}": has a label at each position, which no table holds: use mtl.load(…).predict'
            )
        each = np.stack([network.predict(x, task) for network in networks]).astype(np.float64)
        each = each if each.ndim == 3 else each[:, :, None]
        mean, names = each.mean(axis=0), networks[0].classes.get(task, ())
        classes = names or tuple(str(i) for i in range(spec.classes))
        found: dict[str, np.ndarray] = {}
        if spec.labels != "numbers":
            best = mean.argmax(axis=1) if spec.labels == "ids" else (mean[:, 0] > 0.5).astype(int)
            found[task] = np.array(classes, dtype=object)[best]
        columns = task_columns(task, spec.labels, classes)
        found |= dict(zip(columns, mean.T, strict=True))
        if len(networks) > 1:
            spread = each.std(axis=0, ddof=1)
            found |= dict(zip((f"{name} std" for name in columns), spread.T, strict=True))
        return found


def load_replicates(trials: Mapping[str, Sequence[str | Path]], recipe: str = "") -> Replicates:
    """Return the trained networks in trials' directories; one that several tasks share is loaded once.

    Args:
      trials: ``{task: directories}``; an empty name for the targets of a single trial.
      recipe: what they are, in words.

    Raises:
      CheckpointError: if there is no model in one of them.
    """
    loaded = {path: load(path) for path in dict.fromkeys(p for paths in trials.values() for p in paths)}
    found = {task: tuple(loaded[path] for path in paths) for task, paths in trials.items()}
    if "" in found:
        (network,) = found.pop("")
        found |= dict.fromkeys(network.trial.asked, (network,))
    return Replicates(found, recipe)
