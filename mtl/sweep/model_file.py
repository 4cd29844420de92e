"""A trial's model as a file: its weights, and all it takes to apply them to raw inputs and to read what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl.checkpoint import CheckpointError, dump_tree, load_tree
from mtl.config import Trial
from mtl.data import Table
from mtl.data.scaling import Scaling, described, restore
from mtl.inputs import by_name, each
from mtl.sweep.documents import FORMAT
from mtl.sweep.new_rows import about_model
from mtl.train.program import Weights


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """What a trial's model says.

    Attributes:
      config: the trial's resolved config.
      inputs: what the inputs were, as ``data.scaling.described`` says it.
      weights: parameters and batch statistics.
      scaling: what inputs and labels were scaled with.
    """

    config: dict[str, Any]
    inputs: Mapping[str, Any]
    weights: Weights
    scaling: Scaling


def dump_model(trial: Trial, weights: Weights, table: Table, scaling: Scaling) -> bytes:
    """Return a trial's model as a file; ``read_model`` reads it."""
    tree = {"params": weights.params, "state": weights.state}
    tree |= {"scaling": kept} if (kept := scaling.tree()) else {}
    return dump_tree(tree, {"format": FORMAT, "config": trial.config, "inputs": described(table)})


def read_model(file: Path) -> ModelFile | None:
    """Return a trial's model; nothing if the file is no safetensors file of ours.

    Raises:
      CheckpointError: if it is ours and damaged, of another format, or something else than a model.
    """
    about = about_model(file)
    if about is None:
        return None
    tree, _ = load_tree(file)
    if not isinstance(tree.get("params"), dict):
        raise CheckpointError(f"{file} holds no model of a trial: it has no params")
    kept = tree.get("scaling", {})
    shape = each(tuple, about["inputs"]["shape"])
    if not _is_scaling(kept, shape):
        raise CheckpointError(f"{file} holds no scaling of inputs of shape {shape}")
    weights = Weights(tree["params"], tree.get("state", {}))
    return ModelFile(about["config"], about["inputs"], weights, restore(kept))


def _is_scaling(kept: Any, shape: tuple[int, ...] | Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether arrays are those of ``Scaling.tree``, for inputs of that shape, or leaves of these shapes."""
    if not isinstance(kept, dict) or not kept.keys() <= {"shift", "scale", "fill", "units"}:
        return False
    units = kept.get("units", {})
    inputs, known = {name: by_name(a) for name, a in kept.items() if name != "units"}, by_name(shape)
    arrays = [(a, known.get(leaf)) for each_leaf in inputs.values() for leaf, a in each_leaf.items()]
    arrays += [(a, (2,)) for a in (units.values() if isinstance(units, dict) else [None])]
    if not all(isinstance(a, np.ndarray) and a.dtype == np.float64 and a.shape == of for a, of in arrays):
        return False
    finite = all(np.isfinite(a).all() for name in ("shift", "scale") for a in inputs.get(name, {}).values())
    shift, scale, fill = (inputs.get(name, {}).keys() for name in ("shift", "scale", "fill"))
    return finite and shift == scale and fill <= shift
