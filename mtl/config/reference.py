"""References, models of scikit-learn in place of a network: what they take, and what decides nothing about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl.config.fields import KNOWN, Flat
from mtl.config.problems import ConfigError
from mtl.config.targets import alone
from mtl.data.streamed import Streamed
from mtl.data.table import Table
from mtl.losses import registered
from mtl.regimes import Regime
from mtl.tasks import OURS, Task

#: The most numbers that one input may hold.
MOST_INPUTS = 4096

#: How the fields begin that decide something about a reference: all others are of a network and its training.
_DECIDING = ("seed", "regime", "data.", "metric", "task_options")


def decides(field: str) -> bool:
    """Return whether a field decides anything about a reference.

    >>> decides("data.target_size"), decides("lr"), decides("model.options")
    (True, False, False)
    """
    return field.startswith(_DECIDING)


def without_training(flat: Flat) -> Flat:
    """Return a reference's fields, those that decide nothing as the default has them: one spelling, one hash.

    Its model is never kept: scikit-learn's would have to be pickled.
    """
    return {**KNOWN, **{field: value for field, value in flat.items() if decides(field)}, "save_model": False}


def check_reference(flat: Flat, regime: Regime, table: Table, known: Sequence[Task]) -> Task:
    """Return the target of a reference, if scikit-learn can take it and a data set's inputs.

    Args:
      flat: the config's fields.
      regime: the reference.
      table: the data set.
      known: the study's tasks.

    Raises:
      ConfigError: if it cannot.
    """
    name = flat["regime"]
    if [phase.tasks for phase in regime.expand(1)] != ["target"]:
        raise ConfigError(f'regime "{name}": a model of scikit-learn is a regime of one phase on the target')
    target = alone(flat, regime)
    task = next(t for t in known if t.name == target)
    wrong = _wrong_inputs(table.x, table.vocabulary)
    if wrong:
        wrong = f"the inputs of {table.name} are {wrong}"
    elif task.shape:
        wrong = f"{target} has many labels an example"
    elif task.kind not in OURS or registered([task]):
        wrong = f"{target} has a kind or a loss of the config's own"
    if wrong:
        raise ConfigError(
            f'config.regime = "{name}": scikit-learn takes tables of numbers, in memory, of up to {MOST_INPUTS:,} '
            f"inputs, and one label an example of kinds and losses that it knows; {wrong}: must be a network's regime"
        )
    return task


def _wrong_inputs(x: Any, vocabulary: Any) -> str:
    """Return why scikit-learn cannot take some inputs; nothing if it can."""
    if isinstance(x, Mapping):
        return "several arrays"
    if isinstance(x, Streamed):
        return "streamed"
    if vocabulary:
        return "ids"
    size = x[:1].size
    return f"{size:,} numbers each" if size > MOST_INPUTS else ""
