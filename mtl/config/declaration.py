"""Every field of a config: its type and range, its default, and in its section's docstring what it means.

``mtl config`` prints this file, ``mtl.config.default()`` is the config of its defaults, and ``checks.py`` holds values
against its types. Where a type alone says too little of what would be right, a text beside it does; a registry beside
it has the names that can be given. What is in a free dictionary is declared by those who read it: the options of a
model by the model, rates per task by ``corruption.py``.
"""

# ruff: noqa: RUF012 (nobody changes a default: ``default()`` makes sections of dictionaries)
from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

from mtl.balance import BALANCERS
from mtl.config.augmentation import OPERATIONS
from mtl.data import SOURCES
from mtl.data.corrupt.split import WAYS, Way
from mtl.data.scaling import Way as WayToScale
from mtl.hypothesis import Falsifier
from mtl.models import HEAD_INITS, MODELS
from mtl.optim import OPTIMIZERS
from mtl.optim.rates import SCHEDULES
from mtl.options import meanings
from mtl.ranges import Count, CountOrNone, NotNegative, Positive, Range, Share
from mtl.regimes import REGIMES, Sampling
from mtl.tasks import KINDS

Seed = Annotated[int, Range(0, 2**32 - 1), "an integer from 0 to 4294967295"]
Skew = Annotated[float, Range(-1, 1), "in [-1, 1]"]
AnyShare = Annotated[Share, "in [0, 1]"]
_HIDE = f"one of {', '.join(WAYS)}, or empty"
_NOT_SET = "a finite number, at least 0 (0: not set)"


class Data(NamedTuple):
    """What is learned from: the data set, its tasks, its split, and training labels hidden or made wrong on purpose.

    Attributes:
      name: the data set; a config file may register its own.
      options: passed to the data set.
      source: source tasks.
      target: the target task; of several targets the one for which a regime that ends on one trains a network.
      targets: several targets, or ``("all",)`` for every task that is no source; empty for ``target`` alone.
      rows: ``shared``: a row comes with all its labels, those of source tasks too; ``disjoint``: sources have rows of
        their own; ``auto``: shared by several targets.
      target_size: n: present target labels, validation included.
      target_pool: rows that the n are drawn from, nested in n.
      val_fraction: share of the n that is validation.
      folds: k: each of k folds of the n validates once what the others train, and then all n train for the median of
        the updates that were best; 0 for one split by ``val_fraction``.
      fold_repeats: how often the n are divided into folds anew.
      split: what the test set is drawn from: ``random``: all rows; ``scaffold``: whole scaffolds but the big ones (with
        ``options.groups = "scaffold"``); ``official``: the data's own test part, and validation from its own validation
        part, if there is one.
      test_size: fixed stratified test set of the target; of an official test part at most so many, 0 for all.
      source_size: rows of the source pool, disjoint from the target's; at least 1 if there are source tasks.
      source_val_size: of these, source validation.
      shuffle_source_labels: a control: source labels carry nothing.
      hide: how training labels are hidden on purpose, see ``mtl.data.corrupt.split``; empty for none.
      hide_rate: of every task's labels, negatives (``positive_only``) or examples (``one_task_each``).
      hide_rates: per task instead, one rate a class for ``by_class``; other tasks keep their labels.
      hide_skew: of ``by_rank``: 1 hides high labels most, -1 low ones.
      hide_in_validation: validation keeps the truth; or is hidden, skewed and made wrong like training.
      label_noise: per task: the share of training labels made wrong.
      label_noise_asymmetry: of binary tasks: 1 makes positives wrong only, -1 negatives.
      imbalance: per binary task: the share of positives among training labels.
      normalize: ``auto``: columns that were measured are standardised; ``standardize``: pixels too.
    """

    name: Annotated[str, SOURCES] = "digits"
    options: dict[str, Any] = {}
    source: Annotated[tuple[str, ...], "names of tasks"] = ("identity",)
    target: str = "even"
    targets: Annotated[tuple[str, ...], "names of tasks"] = ()
    rows: Literal["auto", "shared", "disjoint"] = "auto"
    target_size: Annotated[int, Range(2), "at least 2 (one training and one validation label)"] = 100
    target_pool: Annotated[int, Range(2)] = 500
    val_fraction: Annotated[float, Range(0, 1, open_low=True, open_high=True), "between 0 and 1"] = 0.2
    folds: Annotated[int, Range(0), "at least 0 (0: one split by val_fraction)"] = 0
    fold_repeats: Count = 1
    split: Literal["random", "scaffold", "official"] = "random"
    test_size: Annotated[int, Range(0), "at least 1"] = 500
    source_size: Annotated[int, Range(0), "at least 1"] = 797
    source_val_size: CountOrNone = 97
    shuffle_source_labels: bool = False
    hide: Annotated[Literal["", Way], _HIDE] = ""
    hide_rate: AnyShare = 0.0
    hide_rates: dict[str, Any] = {}
    hide_skew: Skew = 0.0
    hide_in_validation: bool = False
    label_noise: dict[str, Any] = {}
    label_noise_asymmetry: Skew = 0.0
    imbalance: dict[str, Any] = {}
    normalize: WayToScale = "auto"


class Model(NamedTuple):
    """The network: a backbone, and a head for each task.

    Attributes:
      name: the backbone; a config file may register its own.
      options: passed to the backbone.
      head_init: how heads begin.
      dtype: what the backbone computes in. Parameters stay in float32.
    """

    name: Annotated[str, MODELS] = "mlp"
    options: dict[str, Any] = {}
    head_init: Annotated[str, HEAD_INITS] = "zeros"
    dtype: Literal["float32", "bfloat16"] = "float32"


class Duration(NamedTuple):
    """How long phases train that spend this budget: set exactly one of the three.

    Attributes:
      total_steps: updates of ``batch_size`` rows each.
      total_epochs: times through the rows that have a training label.
      total_examples: rows drawn, however large a batch is.
    """

    total_steps: Annotated[int, Range(0), _NOT_SET] = 0
    total_epochs: Annotated[float, Range(0), _NOT_SET] = 0.0
    total_examples: Annotated[int, Range(0), _NOT_SET] = 0


class Optimizer(NamedTuple):
    """How parameters move.

    Attributes:
      name: any of optax's; a config file may register its own.
      options: passed to it: b1, b2, momentum, …
      weight_decay: decoupled, unless the optimizer takes it itself.
      decay: what decays; ``kernels``: no biases, no norms.
      schedule: of the rate over a phase, after warm-up.
      warmup: share of a phase's steps.
      clip: global norm of trainable gradients; 0 for none.
      layer_decay: each block's rate is this times that of the block above it.
      rates: multiples of the rate: {"pattern of whole parameter paths": 0.1}.
      ema: share that stays, each step, of an average of the parameters, which is evaluated; 0 for none.
      per_task: the trunk's moments are of each task's gradient by itself.
    """

    name: Annotated[str, OPTIMIZERS] = "adam"
    options: dict[str, Any] = {}
    weight_decay: NotNegative = 0.0
    decay: Literal["all", "kernels"] = "all"
    schedule: Annotated[str, SCHEDULES] = "constant"
    warmup: AnyShare = 0.0
    clip: Annotated[NotNegative, "a finite number, at least 0 (0: no clipping)"] = 0.0
    layer_decay: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    rates: dict[str, NotNegative] = {}
    ema: Annotated[float, Range(0, 1, open_high=True)] = 0.0
    per_task: bool = False


class Balancer(NamedTuple):
    """Of phases on several tasks: how their gradients are weighed for the trunk they share.

    Attributes:
      name: ``equal``, their sum, or a balancer; a config file may register its own.
      options: passed to it.
    """

    name: Annotated[str, BALANCERS] = "equal"
    options: dict[str, Any] = {}


class Ridge(NamedTuple):
    """Of phases with ``solver = "ridge"``.

    Attributes:
      penalties: λ to choose from, for standardised features.
      choose: by what λ is chosen.
    """

    penalties: Annotated[
        tuple[Positive, ...], Range(1), "a tuple of finite numbers above 0, at least one"
    ] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # fmt: skip
    choose: Literal["leave_one_out", "validation"] = "leave_one_out"


class Loss(NamedTuple):
    """What is minimised.

    Attributes:
      denominator: what the sum over present labels is divided by, see ``mtl.losses``.
      weights: per task.
    """

    denominator: Literal["examples", "labels", "tasks"] = "examples"
    weights: dict[str, NotNegative] = {}


class Init(NamedTuple):
    """What regimes that transfer begin from, where it is not trained here.

    Attributes:
      path: a model.safetensors, or an Orbax checkpoint.
      fresh: patterns of parameters that are not loaded, nor the batch statistics that belong to them.
      rename: pairs (pattern, replacement) on loaded paths.
    """

    path: str = ""
    fresh: Annotated[tuple[str, ...], "patterns (texts)"] = ()
    rename: Annotated[tuple[tuple[str, str], ...], "pairs of texts (pattern, replacement)"] = ()


class Tune(NamedTuple):
    """How a sweep tunes the source's rate, once.

    Attributes:
      source_lr: candidates; empty to use source_lr as it is.
      seeds: replicates whose source validation decides.
    """

    source_lr: Annotated[tuple[Positive, ...], "finite numbers above 0"] = ()
    seeds: Annotated[tuple[Seed, ...], "integers from 0 to 4294967295"] = (0, 1, 2, 3, 4)


class Report(NamedTuple):
    """What tables and pages say.

    Attributes:
      question: one sentence.
      baseline: the regime that others are compared with.
      notes: sentences that every table must carry.
      margin: equivalence: within this of the baseline, in the metric's unit.
      looks: at the test set, as planned: the level is spent in equal parts over them, so that a study may end at any.
      contrast: what the study is about, stated before it runs: ``multitask - scratch``, at all sizes or at those after
        an @, ``finetune - scratch @ 20, 100``; tables and page answer it first. Empty for nothing.
      falsifier: what refutes it, by the contrast's interval: ``upper <= margin`` that the first gains more than
        the margin, ``upper <= 0`` that it gains, ``ties`` that they differ by more than the margin.
      rows: the field whose values are the rows of a table.
      columns: the field of numbers whose values are its columns.
    """

    question: str = ""
    baseline: Annotated[str, REGIMES] = "scratch"
    notes: Annotated[tuple[str, ...], "texts"] = ()
    margin: Positive = 0.02
    looks: Count = 1
    contrast: str = ""
    falsifier: Falsifier = "upper <= margin"
    rows: str = "regime"
    columns: str = "data.target_size"


class Fields(NamedTuple):
    """What is trained, and how.

    Attributes:
      name: the study's name: a work directory belongs to one study.
      seed: the replicate: source model, subset, split and initialisation all come from it.
      regime: which phases are trained; a name of ``regimes``, too.
      regimes: the file's own: {"name": (Phase(…), Phase(…))}, see ``mtl.regimes.Phase``.
      augment: training images changed at random: names, or (name, {option: value}), in order.
      lr: the regime's own learning rate.
      source_lr: that of source phases.
      batch_size: B rows, drawn with replacement.
      accumulate: micro-batches that a batch is split into, where it does not fit into memory.
      source_sampling: how the tasks of a source phase mix.
      joint_sampling: how tasks mix with targets; ``auto``: ``rows`` where rows are shared, else ``per_task``.
      temperature: of ``temperature`` sampling, and of ``one_task`` with longer rounds.
      round_steps: of ``one_task`` sampling: steps in a round; 0 for one of each task.
      trunk_mode: of frozen blocks; in ``train`` their dropout drops and their batch statistics move.
      select: which state goes on to the next phase; the ``best`` is by validation, see ``mtl.train.judge``.
      evaluations: validations a phase, evenly spaced.
      patience: of ``best``: a phase ends after so many of them without a better state; 0 for never.
      task_options: per task: pos_weight, label_smoothing, focal_gamma, loss.
      metric: the target's metric in tables; empty for its kind's default.
      save_model: keep each trial's parameters.
    """

    name: str = ""
    seed: Seed = 0
    regime: Annotated[str, REGIMES] = "finetune"
    regimes: dict[str, Any] = {}
    data: Data = Data()
    augment: Annotated[tuple[Any, ...], OPERATIONS] = ()
    model: Model = Model()
    lr: Positive = 1e-3
    source_lr: Positive = 1e-3
    batch_size: Count = 32
    accumulate: Count = 1
    source: Duration = Duration()
    target: Duration = Duration()
    source_sampling: Sampling = "rows"
    joint_sampling: Literal["auto", Sampling] = "auto"
    temperature: Positive = 1.0
    round_steps: Annotated[int, Range(0, 4096)] = 0
    trunk_mode: Literal["eval", "train"] = "eval"
    select: Literal["last", "best"] = "best"
    evaluations: Count = 12
    patience: CountOrNone = 4
    optimizer: Optimizer = Optimizer()
    balancer: Balancer = Balancer()
    ridge: Ridge = Ridge()
    loss: Loss = Loss()
    task_options: dict[str, Any] = {}
    metric: Annotated[str, KINDS] = ""
    init: Init = Init()
    save_model: bool = True
    tune: Tune = Tune()
    report: Report = Report()


class Field(NamedTuple):
    """A field of a config.

    Attributes:
      hint: its type and range.
      default: its default.
      meaning: what it means.
    """

    hint: Any
    default: Any
    meaning: str


#: Every section by its name; the config itself has none.
SECTIONS: dict[str, Any] = {"": Fields} | {k: type(v) for k, v in Fields()._asdict().items() if hasattr(v, "_fields")}

#: Every field by its path, such as ``data.target_size``.
FIELDS = {
    f"{section}.{name}".lstrip("."): Field(hint, declared._field_defaults[name], said.get(name, ""))
    for section, declared in SECTIONS.items()
    for said in [meanings(declared)]
    for name, hint in get_type_hints(declared, include_extras=True).items()
    if section or name not in SECTIONS
}
