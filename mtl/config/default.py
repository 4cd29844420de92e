"""The default config: every field there is, with what it may hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict as Config

from mtl.data.corrupt.split import WAYS
from mtl.data.scaling import WAYS as WAYS_TO_SCALE
from mtl.ranges import finite


class ConfigError(ValueError):
    """A mistake in a config: one sentence that names the field, the value and what would be right."""


class refused:
    """A context in which a ``ValueError`` is a mistake in the config.

    >>> with refused("config.lr: "):
    ...     float("high")
    Traceback (most recent call last):
    ...
    mtl.config.default.ConfigError: config.lr: could not convert string to float: 'high'
    """

    def __init__(self, where: str = "config.") -> None:
        """Begin the sentence with ``where``."""
        self.where = where

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Raise the mistake in place of the error."""
        if isinstance(error, ValueError):
            raise ConfigError(f"{self.where}{error}") from None


class _Section(Config):
    """A section of a config. A free one (see ``FREE``) has names for keys, which may hold dots."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set a key; a dictionary becomes a section as free as the one that it replaces or goes into."""
        there = self._fields.get(key)
        if self.allow_dotted_keys or (isinstance(there, Config) and there.allow_dotted_keys):
            value = _free(value)
        super().__setitem__(key, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be what was pickled or copied; ml_collections itself forgets that keys may hold dots."""
        super().__setstate__({**state, "_fields": {}, "_locked": False})
        object.__setattr__(self, "_allow_dotted_keys", state["_allow_dotted_keys"])
        for key, value in state["_fields"].items():
            self[key] = value
        object.__setattr__(self, "_locked", state["_locked"])


def _free(value: Any) -> Any:
    if not isinstance(value, dict | Config) or isinstance(value, _Section):
        return value
    section = _Section(allow_dotted_keys=True)
    for key, inner in value.items():
        section[key] = inner
    return section


def default() -> Config:
    """Return the default config, locked: a key that is not in it is an error.

    Durations have their unit in the name, and exactly one of ``total_steps``, ``total_epochs``, ``total_examples``
    is set (not 0) in each of ``source`` and ``target``.
    """
    c = _Section()
    c.name = ""  # The study's name: a work directory belongs to one study.
    c.seed = 0  # The replicate: source model, subset, split and initialisation all come from it.
    c.regime = "finetune"  # A name in mtl.regimes.REGIMES or in regimes.
    c.regimes = _free({})  # The file's own: {"name": (Phase(…), Phase(…))}, see mtl.regimes.Phase.

    c.data = _Section()
    c.data.name = "digits"  # A name in mtl.data.SOURCES; a config file may register its own.
    c.data.options = _free({})  # Passed to the data set.
    c.data.source = ("identity",)  # Source tasks.
    c.data.target = "even"  # The target task.
    c.data.targets = ()  # Or several, or ("all",); data.target then names one of them for regimes that end on one.
    c.data.rows = "auto"  # "shared": a row comes with all its labels; "disjoint"; auto: shared by several targets.
    c.data.target_size = 100  # n: present target labels, validation included.
    c.data.target_pool = 500  # Rows that the n are drawn from, nested in n.
    c.data.val_fraction = 0.2  # Share of the n that is validation.
    c.data.test_size = 500  # Fixed stratified test set of the target.
    c.data.source_size = 797  # Rows of the source pool, disjoint from the target's.
    c.data.source_val_size = 97  # Of these, source validation.
    c.data.shuffle_source_labels = False  # A control: source labels carry nothing.
    c.data.hide = (
        ""  # Training labels hidden on purpose: a name in mtl.data.corrupt.split.WAYS, where all of this is explained.
    )
    c.data.hide_rate = 0.0  # Of every task's labels, negatives ("positive_only") or examples ("one_task_each").
    c.data.hide_rates = _free({})  # Per task instead, one rate a class for "by_class"; other tasks keep their labels.
    c.data.hide_skew = 0.0  # Of "by_rank": 1 hides high labels most, -1 low ones.
    c.data.hide_in_validation = False  # Validation keeps the truth; or is hidden, skewed and made wrong like training.
    c.data.label_noise = _free({})  # Per task: the share of training labels made wrong.
    c.data.label_noise_asymmetry = 0.0  # Of binary tasks: 1 makes positives wrong only, -1 negatives.
    c.data.imbalance = _free({})  # Per binary task: the share of positives among training labels.
    c.data.normalize = "auto"  # Columns that were measured are standardised; "standardize": pixels too; or "none".

    c.augment = ()  # Training images changed at random: names in mtl.config.augmentation.OPERATIONS, or (name, {…}).

    c.model = _Section()
    c.model.name = "mlp"  # A name in mtl.models.MODELS; a config file may register its own.
    c.model.options = _free({})  # Passed to the backbone.
    c.model.head_init = "zeros"  # Or "lecun_normal".
    c.model.dtype = "float32"  # What the backbone computes in; or "bfloat16". Parameters stay in float32.

    c.lr = 1e-3  # The regime's own learning rate.
    c.source_lr = 1e-3  # That of source phases.
    c.batch_size = 32  # B rows, drawn with replacement.
    c.accumulate = 1  # Micro-batches that a batch is split into, where it does not fit into memory.
    c.source = _duration()
    c.target = _duration()
    c.source_sampling = "proportional"  # How the tasks of a source phase mix.
    c.joint_sampling = "auto"  # How tasks mix with targets: "proportional" where rows are shared, else "per_task".
    c.temperature = 1.0  # Of "temperature" sampling, and of "one_task" with longer rounds.
    c.round_steps = 0  # Of "one_task" sampling: steps in a round; 0 for one of each task.
    c.trunk_mode = "eval"  # Frozen blocks in eval mode, or "train".
    c.select = "last"  # What goes on to the next phase; "best" on validation.
    c.evaluations = 6  # Validations a phase, evenly spaced.

    c.optimizer = _Section()
    c.optimizer.name = "adam"  # Any of optax's, or a name in mtl.optim.OPTIMIZERS; a config file may register its own.
    c.optimizer.options = _free({})  # Passed to it: b1, b2, momentum, …
    c.optimizer.weight_decay = 0.0  # Decoupled, unless the optimizer takes it itself.
    c.optimizer.decay = "all"  # What decays; or "kernels": no biases, no norms.
    c.optimizer.schedule = "constant"  # A name in mtl.optim.rates.SCHEDULES: "cosine", "linear".
    c.optimizer.warmup = 0.0  # Share of a phase's steps.
    c.optimizer.clip = 0.0  # Global norm of trainable gradients; 0 for none.
    c.optimizer.layer_decay = 1.0  # Each block's rate is this times that of the block above it.
    c.optimizer.rates = _free({})  # Multiples of the rate: {"pattern of whole parameter paths": 0.1}.
    c.optimizer.ema = 0.0  # Share that stays, each step, of an average of the parameters, which is evaluated; 0: none.
    c.optimizer.per_task = False  # The trunk's moments are of each task's gradient by itself.

    c.balancer = _Section()  # Of phases on several tasks: how their gradients are weighed for the trunk they share.
    c.balancer.name = "equal"  # Their sum; or a name in mtl.balance.BALANCERS; a config file may register its own.
    c.balancer.options = _free({})  # Passed to it.

    c.ridge = _Section()  # Of phases with solver = "ridge".
    c.ridge.penalties = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # λ to choose from, for standardised features.
    c.ridge.choose = "leave_one_out"  # Or "validation".

    c.loss = _Section()
    c.loss.denominator = "examples"  # Or "labels", "tasks".
    c.loss.weights = _free({})  # Per task.
    c.task_options = _free({})  # Per task: pos_weight, label_smoothing, focal_gamma.
    c.metric = ""  # The target's metric in tables; empty for its kind's default.

    c.init = _Section()
    c.init.path = ""  # A model.safetensors (or an Orbax checkpoint) that regimes which transfer begin from.
    c.init.fresh = ()  # Patterns of parameters that are not loaded, nor the batch statistics that belong to them.
    c.init.rename = ()  # Pairs (pattern, replacement) on loaded paths.
    c.save_model = True  # Keep each trial's parameters.

    c.tune = _Section()  # How a sweep tunes the source's rate, once.
    c.tune.source_lr = ()  # Candidates; empty to use source_lr as it is.
    c.tune.seeds = (0, 1, 2, 3, 4)  # Replicates whose source validation decides.

    c.report = _Section()
    c.report.question = ""  # One sentence.
    c.report.baseline = "scratch"
    c.report.notes = ()  # Sentences that every table must carry.
    c.report.margin = 0.02  # Equivalence: within this of the baseline, in the metric's unit.
    c.lock()
    for path in FREE:
        section = c
        for key in path.split("."):
            section = section[key]
        section.unlock()
    return c


def _duration() -> Config:
    c = _Section()
    c.total_steps = 0
    c.total_epochs = 0.0
    c.total_examples = 0
    return c


#: Sections whose keys are free: regimes by name, numbers per task or pattern, and the options of what has a name.
FREE = (
    *("regimes", "data.options", "data.hide_rates", "data.label_noise", "data.imbalance"),
    *("model.options", "loss.weights", "task_options", "optimizer.options", "optimizer.rates"),
    "balancer.options",
)


def _penalties(value: Any) -> bool:
    return bool(value) and all(finite(v) and v > 0 for v in value)


#: How tasks mix, see ``train.sampling``.
SAMPLINGS = ("per_task", "proportional", "uniform", "temperature", "one_task")
_SAMPLINGS = ", ".join(f'"{s}"' for s in SAMPLINGS[:-1]) + f' or "{SAMPLINGS[-1]}"'

#: (field, what it accepts, what would be right)
RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("seed", lambda v: 0 <= v < 2**32, "an integer from 0 to 4294967295"),
    ("data.target_size", lambda v: v >= 2, "at least 2 (one training and one validation label)"),
    ("data.target_pool", lambda v: v >= 2, "at least 2"),
    ("data.rows", lambda v: v in ("auto", "shared", "disjoint"), '"auto", "shared" or "disjoint"'),
    ("data.val_fraction", lambda v: 0 < v < 1, "between 0 and 1"),
    ("data.test_size", lambda v: v >= 1, "at least 1"),
    ("data.source_size", lambda v: v >= 1, "at least 1"),
    ("data.source_val_size", lambda v: v >= 0, "at least 0"),
    ("data.hide", lambda v: v in ("", *WAYS), f"one of {', '.join(WAYS)}, or empty"),
    ("data.hide_rate", lambda v: 0 <= v <= 1, "in [0, 1]"),
    ("data.hide_skew", lambda v: -1 <= v <= 1, "in [-1, 1]"),
    ("data.label_noise_asymmetry", lambda v: -1 <= v <= 1, "in [-1, 1]"),
    ("data.normalize", lambda v: v in WAYS_TO_SCALE, '"auto", "standardize" or "none"'),
    ("lr", lambda v: math.isfinite(v) and v > 0, "a finite number above 0"),
    ("source_lr", lambda v: math.isfinite(v) and v > 0, "a finite number above 0"),
    ("batch_size", lambda v: v >= 1, "at least 1"),
    ("accumulate", lambda v: v >= 1, "at least 1"),
    ("model.dtype", lambda v: v in ("float32", "bfloat16"), '"float32" or "bfloat16"'),
    ("source_sampling", lambda v: v in SAMPLINGS, _SAMPLINGS),
    ("joint_sampling", lambda v: v in ("auto", *SAMPLINGS), f'"auto", {_SAMPLINGS}'),
    ("round_steps", lambda v: 0 <= v <= 4096, "from 0 to 4096"),
    ("temperature", lambda v: math.isfinite(v) and v > 0, "a finite number above 0"),
    ("trunk_mode", lambda v: v in ("eval", "train"), '"eval" or "train"'),
    ("select", lambda v: v in ("last", "best"), '"last" or "best"'),
    ("evaluations", lambda v: v >= 1, "at least 1"),
    ("optimizer.weight_decay", lambda v: math.isfinite(v) and v >= 0, "a finite number, at least 0"),
    ("optimizer.decay", lambda v: v in ("all", "kernels"), '"all" or "kernels"'),
    ("optimizer.warmup", lambda v: 0 <= v <= 1, "in [0, 1]"),
    ("optimizer.clip", lambda v: math.isfinite(v) and v >= 0, "a finite number, at least 0 (0: no clipping)"),
    ("optimizer.layer_decay", lambda v: 0 < v <= 1, "in (0, 1]"),
    ("optimizer.ema", lambda v: 0 <= v < 1, "in [0, 1)"),
    ("ridge.penalties", _penalties, "a tuple of finite numbers above 0, at least one"),
    ("ridge.choose", lambda v: v in ("leave_one_out", "validation"), '"leave_one_out" or "validation"'),
    ("loss.denominator", lambda v: v in ("examples", "labels", "tasks"), '"examples", "labels" or "tasks"'),
    ("report.margin", lambda v: math.isfinite(v) and v > 0, "a finite number above 0"),
)
