"""What a task accepts, and the sentence it refuses with."""

import dataclasses
import math

import pytest

from mtl import tasks
from mtl.tasks import Task


@pytest.mark.parametrize(
    ("kind", "classes", "outputs", "dtype", "metric"),
    [
        ("binary", 0, 1, "float32", "accuracy"),
        ("multiclass", 7, 7, "int32", "accuracy"),
        ("regression", 0, 1, "float64", "r2"),
    ],
)
def test_a_task_knows_its_head_its_labels_and_its_metric(kind, classes, outputs, dtype, metric):
    task = Task("t", kind, num_classes=classes)
    assert (task.outputs, task.label_dtype, task.metric) == (outputs, dtype, metric)


@pytest.mark.parametrize("kind", tasks.KINDS)
def test_a_task_can_have_each_metric_of_its_kind_and_no_other(kind):
    own = tasks.KINDS[kind]
    given = {"num_classes": 3 if own.labels == "ids" else 0, "shape": (2, 2) if own.dense else ()}
    for metric in {m for k in tasks.KINDS.values() for m in k.metrics}:
        if metric in own.metrics:
            assert Task("t", kind, **given, metric=metric).metric == metric
        else:
            with pytest.raises(ValueError, match=f'task "t": a {kind} task cannot have metric "{metric}"'):
                Task("t", kind, **given, metric=metric)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": ""}, 'task "": name: must not be empty'),
        ({"metric": "acuracy"}, 'cannot have metric "acuracy": did you mean "accuracy"'),
        ({"num_classes": 2}, "num_classes = 2: must be 0 for binary"),
        ({"kind": "multiclass"}, "num_classes = 0: must be at least 2"),
        ({"kind": "multiclass", "num_classes": 1}, "num_classes = 1: must be at least 2"),
        ({"kind": "multiclass", "num_classes": 3, "pos_weight": 2.0}, "pos_weight is for binary tasks"),
        ({"kind": "regression", "pos_weight": 2.0}, "pos_weight is for binary tasks"),
        ({"kind": "regression", "label_smoothing": 0.1}, "are not for regression"),
        ({"kind": "regression", "focal_gamma": 1.0}, "are not for regression"),
        ({"weight": -1.0}, r"weight = -1.0: must be in \[0, inf\)"),
        ({"weight": math.nan}, "weight = nan: must be in"),
        ({"pos_weight": math.inf}, "pos_weight = inf: must be in"),
        ({"label_smoothing": 1.0}, r"label_smoothing = 1.0: must be in \[0, 1\)"),
        ({"focal_gamma": -0.5}, "focal_gamma = -0.5: must be in"),
        ({"loss": "logistics"}, 'a binary task cannot have loss "logistics": did you mean "logistic"'),
        ({"loss": "squared"}, 'a binary task cannot have loss "squared"'),
    ],
)
def test_a_task_refuses_what_cannot_be(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Task(**{"name": "t", "kind": "binary", **options})


def test_a_kind_that_does_not_exist_is_refused_with_the_nearest():
    # Past the type checker, as from a config file.
    task = object.__new__(Task)
    for field in dataclasses.fields(Task):
        object.__setattr__(task, field.name, "binry" if field.name == "kind" else field.default)
    object.__setattr__(task, "name", "t")
    with pytest.raises(ValueError, match='task "t": kind "binry": did you mean "binary"'):
        task.__post_init__()


def test_a_task_is_a_value():
    one, two = Task("t", "binary"), Task("t", "binary", metric="accuracy")
    assert one == two
    assert hash(one) == hash(two)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.weight = 2.0


def test_suggest_names_the_nearest_and_all():
    assert tasks.suggest("scratsh", ["finetune", "scratch"]).startswith('did you mean "scratch"? Valid: finetune')
    assert tasks.suggest("zzz", ["b", "a"]) == "Valid: a, b"
