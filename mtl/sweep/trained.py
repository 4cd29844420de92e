"""A trained trial, ready to predict."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np

from mtl.checkpoint import CheckpointError, load_tree
from mtl.config import Trial
from mtl.models import Model
from mtl.sweep.documents import FORMAT, StoreError, inside
from mtl.tasks import suggest
from mtl.train.phase import Weights
from mtl.train.predict import predict


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained trial.

    Attributes:
      trial: its resolved config.
      model: the model.
      weights: parameters and batch statistics.
      shift, scale: what inputs are standardised with; ``None`` if they are not.
    """

    trial: Trial
    model: Model
    weights: Weights
    shift: np.ndarray | None
    scale: np.ndarray | None

    def predict(self, x: np.ndarray, task: str = "") -> np.ndarray:
        """Return probabilities of a task for inputs x.

        Args:
          x: inputs as the data set gives them, [n, …].
          task: a task's name; the target by default.

        Returns:
          P(y = 1) [n] of a binary task, P(y = c) [n, classes] of a multi-class one, predictions [n] of a regression.

        Raises:
          ValueError: for a task without a head, or inputs of another shape than the model's.
        """
        name = task or self.trial.target
        names = [t.name for t in self.model.tasks]
        if name not in names:
            raise ValueError(f'task = "{name}": {suggest(name, names)}')
        x = np.asarray(x, np.float32)
        ones = np.ones((1, *x.shape[1:]), np.float32)
        try:
            outputs = predict(
                self.model,
                name,
                [self.weights],
                ones * 0 if self.shift is None else self.shift[None],
                ones if self.scale is None else self.scale[None],
                x,
                standardize=self.shift is not None,
            )[0]
        except (TypeError, ValueError) as error:
            raise ValueError(f"x of shape {x.shape} does not suit the model: {error}") from None
        spec = self.model.task(name)
        if spec.kind == "multiclass":
            return np.asarray(jax.nn.softmax(outputs, axis=-1))
        return np.asarray(jax.nn.sigmoid(outputs[:, 0])) if spec.kind == "binary" else outputs[:, 0]


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
        raise CheckpointError(f"{trial} holds no model.safetensors: is it a trial's directory, run with save_model?")
    try:
        tree, about = load_tree(file)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove {trial} and run the sweep again to train it anew") from None
    if about.get("format") != FORMAT:
        raise CheckpointError(f"{file} is of format {about.get('format')}: another version of mtl wrote it")
    if not isinstance(about.get("config"), dict) or not isinstance(tree.get("params"), dict):
        raise CheckpointError(f"{file} holds no model of a trial")
    resolved = Trial(about["config"])
    norm = tree.get("normalization", {})
    weights = Weights(tree["params"], tree.get("state", {}))
    return Trained(resolved, resolved.model(), weights, norm.get("shift"), norm.get("scale"))
