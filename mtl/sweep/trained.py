"""A trained trial, ready to predict."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtl.checkpoint import CheckpointError
from mtl.config import Trial
from mtl.data.leaf import check_ids
from mtl.data.problems import DataError
from mtl.data.scaling import Scaling
from mtl.inputs import by_name, count, each
from mtl.models import Model
from mtl.regimes import REFERENCES
from mtl.sweep.documents import StoreError, inside
from mtl.sweep.model_file import read_model
from mtl.sweep.new_rows import frame_rows
from mtl.tasks import KINDS, suggest
from mtl.train.predict import predict
from mtl.train.program import Weights


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained trial.

    Attributes:
      trial: its resolved config.
      model: the model.
      weights: parameters and batch statistics.
      scaling: what inputs and labels were scaled with.
      inputs: what the inputs were: ``shape``, whether they are ``pixels``, names of ``columns``, which of them have
        ``gaps``, the ``vocabulary`` of ids, each of them ``{leaf: …}`` where there are several; how raw ones were read
        (``reading``), and the ``classes`` of each task.
    """

    trial: Trial
    model: Model
    weights: Weights
    scaling: Scaling
    inputs: Mapping[str, Any]

    @property
    def shift(self) -> Any:
        """What is subtracted from inputs, in their own unit; ``None`` if they are taken as they are."""
        return self.scaling.shift

    @property
    def scale(self) -> Any:
        """What inputs are multiplied by then; ``None`` likewise."""
        return self.scaling.scale

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """What the classes of each task are called, in order of their ids; tasks whose classes have names only."""
        return {task: tuple(names) for task, names in self.inputs["classes"].items()}

    def predict(self, x: Any, task: str = "") -> np.ndarray:
        """Return probabilities of a task for inputs x; they are scaled, and missing ones filled in, as in training.

        Args:
          x: inputs as the data set's table gives them, [n, …]; or a DataFrame with columns of their names, or of the
            table's, which are encoded as in training. Where there are several leaves, ``{leaf: [n, …]}``.
          task: a task's name; by default the target of a network for one.

        Returns:
          P(y = 1) [n] of a binary task, P(y = c) [n, classes] of a multi-class one, predictions [n] of a regression in
          the unit of its labels; of a dense task at each position, [n, *shape] and [n, *shape, classes].

        Raises:
          ValueError: for a task without a head.
          DataError: for inputs that are not like those of the training: of another shape, not finite or missing where
            none was, pixels outside [0, 1], ids that do not exist; columns that are not there.
        """
        name = task or self.trial.target
        names = [t.name for t in self.model.tasks]
        if name not in names:
            raise ValueError(f'task = "{name}": {suggest(name, names)}')
        try:
            x = self._checked(x)
        except ValueError as error:  # So that a command knows it for one of input.
            raise DataError(getattr(error, "sentences", str(error)), getattr(error, "count", 0)) from None
        seen = self.scaling.inputs(x, self.inputs.get("vocabulary"))
        spec = self.model.task(name)
        some = seen if count(seen) else each(lambda a: np.zeros((1, *a.shape[1:]), a.dtype), seen)
        outputs = predict(self.model, [name], [self.weights], some)[name][0][: count(seen)]
        if spec.labels == "ids":
            return np.asarray(jax.nn.softmax(outputs, axis=-1))
        if spec.labels == "binary":
            return np.asarray(jax.nn.sigmoid(outputs[..., 0]))
        return self.scaling.outputs(name, outputs[..., 0])

    def _encoded(self, x: Any) -> Any:
        """Return a DataFrame's rows as inputs; anything else as it is."""
        if not hasattr(x, "columns") or not self.inputs["columns"] or self.inputs.get("vocabulary"):
            return x
        try:
            rows = frame_rows(x, self.inputs, self.trial.config["data"].get("options", {}).get("missing", ()))
        except DataError as error:
            raise DataError([f"x: {sentence}" for sentence in error.sentences], error.count) from None
        for sentence in rows.told:
            warnings.warn(sentence, stacklevel=4)
        return rows.x

    def _checked(self, x: Any) -> Any:
        """Return inputs, if they are like those of the training."""
        known = by_name(self.inputs["shape"])
        if "" in known:
            return _like_training("x", self._encoded(x), self.inputs)
        if not isinstance(x, Mapping) or x.keys() != known.keys():
            given = f"a dict of {', '.join(map(str, x))}" if isinstance(x, Mapping) else f"a {type(x).__name__}"
            raise ValueError(f"x: {given}: must be a dict of {', '.join(known)}, as in training")
        found = {
            leaf: _like_training(f'x["{leaf}"]', x[leaf], {k: facts.get(leaf) for k, facts in self.inputs.items()})
            for leaf in known
        }
        if len(set(rows := [len(given) for given in found.values()])) > 1:
            raise ValueError(f"x: leaves of {', '.join(map(str, rows))} rows: must be as many of each")
        return found


def _like_training(where: str, x: Any, facts: Mapping[str, Any]) -> np.ndarray:
    """Return one leaf of inputs, if it is like that of the training."""
    shape = tuple(facts["shape"])
    sizes = ", ".join(map(str, shape))
    if (names := getattr(x, "columns", None)) is not None and (wanted := facts["columns"]):
        if absent := [name for name in wanted if name not in names]:
            raise ValueError(f'{where}: has no column "{absent[0]}": must have {", ".join(wanted)}, as in training')
        x = x[wanted]  # By name, whatever their order.
    given = np.asarray(x)
    if given.dtype.kind not in "biuf":
        raise ValueError(f"{where}: dtype {given.dtype}: must be numbers [n, {sizes}]")
    if given.shape[1:] != shape or given.ndim != len(shape) + 1:
        one = f": one input is {where}[None]" if given.shape == shape else ""
        raise ValueError(f"{where}: shape {given.shape}: must be (n, {sizes}), as in training{one}")
    if vocabulary := facts.get("vocabulary"):
        return check_ids(where, given, vocabulary, "vocabulary")
    gaps = np.zeros(shape, bool)
    gaps.reshape(-1)[facts["gaps"]] = True
    bad = ~np.isfinite(given) & ~(np.isnan(given.astype(np.float64)) & gaps)
    if bad.any():
        at = np.argwhere(bad)[0]
        name = f'"{facts["columns"][at[1]]}"' if facts["columns"] else ", ".join(str(i) for i in at[1:])
        raise ValueError(
            f"{where}: {given[tuple(at)]} in row {at[0]}, input {name}: must be finite, as none was missing in training"
        )
    if facts["pixels"] and facts["unit_range"] and given.size:
        low, high = float(given.min()), float(given.max())
        if low < 0 or high > 1:
            raise ValueError(
                f"{where}: {given.dtype} from {low:g} to {high:g}: must be pixels in [0, 1], as in training"
            )
    return given


def load(trial: str | Path) -> Trained:
    """Return the trained trial in a trial's directory (``WORKDIR/trials/HASH``).

    Raises:
      CheckpointError: if there is no model there (``save_model = False`` keeps none), or it cannot be read.
    """
    try:
        file = inside(Path(trial), "model.safetensors")
    except StoreError as error:
        raise CheckpointError(str(error)) from None
    if not file.is_file():
        raise CheckpointError(
            f"{trial} holds no model.safetensors: is it a trial's directory, run with save_model? Of "
            f"{' and '.join(REFERENCES)}, models of scikit-learn, none is kept: they would have to be pickled"
        )
    try:
        found = read_model(file)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove {trial} and run the sweep again to train it anew") from None
    if found is None:
        raise CheckpointError(f"{file} holds no model of a trial")
    for task in found.config["tasks"]:
        kind = KINDS.get(task["kind"])
        for what, room in (("kind", "tasks"), ("loss", "losses"), ("metric", "metrics")):
            known = KINDS if kind is None or what == "kind" else kind.losses if what == "loss" else kind.metrics
            if task.get(what) and task[what] not in known:
                raise CheckpointError(
                    f'{file}: task "{task["name"]}" has the {what} "{task[what]}", which this process does not know: '
                    f"first execute what registers it (with mtl.{room}.register)"
                )
    resolved = Trial(found.config)
    return Trained(resolved, resolved.model(), found.weights, found.scaling, found.inputs)
