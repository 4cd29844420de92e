"""A trial: one fully resolved config, its phases and its model; its hash is its address."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mtl.config import augmentation
from mtl.regimes import REFERENCES, Phase
from mtl.tasks import Task

if TYPE_CHECKING:
    import mtl.models


@dataclasses.dataclass(frozen=True)
class Resolved(Phase):
    """A phase with nothing left open: words are names of tasks, patterns on whole paths and numbers.

    What says how long it is has become ``total_steps``.

    Attributes:
      augment: the operations.
      begin: ``init`` of a first phase that begins from loaded weights; else empty.
      adapt: the adapter's name, options and layers, as JSON; else empty.
    """

    tasks: tuple[str, ...] = ()
    trainable: tuple[str, ...] = ()
    lr: float = 0.0
    augment: augmentation.Spec = ()
    adapt: str = ""

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return self.batch * (len(self.tasks) if self.sampling == "per_task" else 1)

    def stated(self) -> dict[str, Any]:
        """Return it as a resolved config states it: without what it does not have, so that hashes stay."""
        found = {**vars(self), "augment": augmentation.stated(self.augment)}
        open_ended = ("budget", "equal", "share", "total_epochs", "total_examples")
        rare = ("round_steps", "augment", "begin", "adapt")
        return {k: v for k, v in found.items() if k not in open_ended and (v or k not in rare)}


@dataclasses.dataclass(frozen=True)
class Trial:
    """One fully resolved config.

    Attributes:
      config: what decides the result, and nothing else, as JSON types.
    """

    config: dict[str, Any]

    @functools.cached_property
    def json(self) -> str:
        """The canonical JSON: sorted keys, no spaces, no NaN."""
        return canonical(self.config)

    @functools.cached_property
    def hash(self) -> str:
        """The first 16 hexadecimal digits of the sha256 of the canonical JSON: the trial's directory."""
        return hashlib.sha256(self.json.encode()).hexdigest()[:16]

    @property
    def seed(self) -> int:
        """The replicate."""
        return int(self.config["seed"])

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that its network is for."""
        return targets_of(self.config)

    @property
    def asked(self) -> tuple[str, ...]:
        """The study's targets."""
        return asked_of(self.config)

    @property
    def judging(self) -> tuple[str, ...]:
        """The targets by which its states and rates are chosen."""
        return self.targets if self.config.get("judge") == "each" else self.asked

    @property
    def target(self) -> str:
        """The target of a network for one; empty for a network for several."""
        return self.targets[0] if len(self.targets) == 1 else ""

    @property
    def loads(self) -> str:
        """The path of the weights that it begins from; empty if they are random, whatever ``init.path`` says."""
        first = self.config["phases"][0] if self.config["phases"] else {}
        return str(self.config.get("init", {}).get("path", "")) if first.get("begin") == "init" else ""

    @functools.cached_property
    def folds(self) -> tuple[Trial, ...]:
        """The trials that leave one fold of the n labels out each, to choose by; this one then trains on all n."""
        data = self.config["data"]
        count = 0 if "fold" in data or self.reference else data.get("folds", 0) * data.get("fold_repeats", 1)
        return tuple(Trial({**self.config, "data": {**data, "fold": fold}}) for fold in range(count))

    @property
    def chosen_by(self) -> tuple[Trial, ...]:
        """The trials whose validation chooses for it: its folds, or else itself."""
        return self.folds or (self,)

    @functools.cached_property
    def phases(self) -> tuple[Resolved, ...]:
        """The resolved phases."""
        found = []
        for phase in self.config["phases"]:
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in phase.items()}
            tasks = [t for t in self.tasks if t.name in fields["tasks"]]
            fields["augment"] = augmentation.parse(fields.get("augment", ()), tasks)
            found.append(Resolved(**fields))
        return tuple(found)

    @functools.cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks: sources, then targets; in a study of several targets those that its phases see."""
        return tuple(Task(**t) for t in self.config["tasks"])

    @property
    def reference(self) -> bool:
        """Whether a model of scikit-learn stands in place of its network."""
        return any(phase["solver"] in REFERENCES for phase in self.config["phases"])

    def model(self) -> mtl.models.Model:
        """Build the model; equal trials' models are equal, and the same object while they are remembered."""
        from mtl.losses import registered  # Here, as JAX is imported with it, which who reads results does not need.
        from mtl.models import MODELS

        m = self.config["model"]
        of = MODELS.get(m["name"]), registered(self.tasks)
        return _model(of, m["name"], canonical(m["options"]), self.tasks, m["head_init"], m["dtype"])


@functools.lru_cache(maxsize=64)
def _model(
    of: tuple[Any, ...], name: str, options: str, tasks: tuple[Task, ...], head_init: str, dtype: str
) -> mtl.models.Model:
    from mtl.models import build

    del of  # Part of the key alone: a config file that is executed again may have changed what it registers.
    return build(name, json.loads(options), tasks, head_init, dtype)


def canonical(value: Any) -> str:
    """Return canonical JSON: sorted keys, no spaces, tuples as lists, no NaN.

    >>> canonical({"b": (1, 2), "a": None})
    '{"a":null,"b":[1,2]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def asked_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the tasks that a study asks about, from a trial's resolved config."""
    data = config["data"]
    return tuple(data["targets"]) if "targets" in data else (data["target"],)


def targets_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the targets that a trial's network is for, from its resolved config."""
    return tuple(config["targets"]) if "targets" in config else asked_of(config)


def has_several(config: Mapping[str, Any]) -> bool:
    """Return whether a trial is of a study whose rows have the labels of several tasks, from its resolved config."""
    return "targets" in config["data"]
