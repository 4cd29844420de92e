"""What hides, skews or corrupts labels: stated once, in one spelling; nothing that is off changes a hash."""

import numpy as np
import pytest

from mtl import data
from mtl.config import ConfigError, override, resolve
from mtl.config.fields import KNOWN
from mtl.tasks import Task

DIGITS = data.load("digits")
BASE = override(KNOWN, {"source.total_steps": 1, "target.total_steps": 1, "data.source": ("identity", "prime")})


def section(**changes):
    fields = {f"data.{name}": value for name, value in changes.items()}
    return resolve(override(BASE, fields), DIGITS).config["data"]


def refusal(**changes):
    with pytest.raises(ConfigError) as error:
        section(**changes)
    assert "\n" not in str(error.value)
    return str(error.value)


OFF = section()


def test_a_config_without_any_of_it_says_nothing_of_it():
    assert not {"hide", "hide_rates", "label_noise", "imbalance", "hide_in_validation"} & OFF.keys()
    # What goes into the hash is what did before there was any of this.
    names = {"name", "options", "source", "target", "target_size", "target_pool", "val_fraction", "test_size"}
    assert OFF.keys() == names | {"source_size", "source_val_size", "shuffle_source_labels", "normalize"}


@pytest.mark.parametrize(
    "changes",
    [
        {"hide_in_validation": True},
        {"hide_skew": 1.0},
        {"label_noise": {"prime": 0.0}},
        {"hide": "at_random", "hide_rates": {"prime": 0.0}},
        {"hide": "by_class", "hide_rates": {"prime": (0.0, 0)}},
    ],
)
def test_what_hides_nothing_is_not_stated(changes):
    assert section(**changes) == OFF


def test_one_study_has_one_spelling():
    one = section(hide="at_random", hide_rate=0.5)
    assert one["hide_rates"] == {"identity": 0.5, "prime": 0.5, "even": 0.5}
    assert one == section(hide="at_random", hide_rates={"even": 0.5, "prime": 0.5, "identity": 0.5})
    assert one == section(hide="at_random", hide_rate=0.5, hide_skew=0.7)
    assert section(hide="positive_only", hide_rate=1)["hide_rates"] == {"prime": 1.0, "even": 1.0}
    assert section(hide="one_task_each", hide_rate=1)["hide_rate"] == 1.0
    assert section(hide="by_rank", hide_rate=0.5, hide_skew=-1)["hide_skew"] == -1.0
    assert section(hide="by_class", hide_rates={"even": [1, 0]})["hide_rates"] == {"even": [1.0, 0.0]}
    assert section(imbalance={"even": 0.1}, hide_in_validation=True)["hide_in_validation"] is True


def test_every_rate_changes_the_hash():
    ways = [
        {},
        {"hide": "at_random", "hide_rate": 0.5},
        {"hide": "at_random", "hide_rate": 0.6},
        {"hide": "at_random", "hide_rates": {"prime": 0.5}},
        {"hide": "by_rank", "hide_rate": 0.5},
        {"hide": "by_rank", "hide_rate": 0.5, "hide_skew": 0.5},
        {"hide": "positive_only", "hide_rate": 0.5},
        {"hide": "positive_only", "hide_rate": 0.5, "hide_in_validation": True},
        {"label_noise": {"prime": 0.1}},
        {"label_noise": {"prime": 0.1}, "label_noise_asymmetry": 0.5},
        {"imbalance": {"prime": 0.1}},
    ]
    hashes = {resolve(override(BASE, {f"data.{k}": v for k, v in way.items()}), DIGITS).hash for way in ways}
    assert len(hashes) == len(ways)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"hide_rate": 0.3}, "config.data.hide_rate = 0.3: hides nothing without a way"),
        ({"hide_rates": {"prime": 0.3}}, "config.data.hide_rates = {'prime': 0.3}: hides nothing without a way"),
        ({"hide": "at_random"}, 'config.data.hide = "at_random": hides nothing at rate 0: set data.hide_rate'),
        ({"hide": "by_class"}, 'config.data.hide = "by_class": hides nothing at rate 0: set data.hide_rates'),
        ({"hide": "at_random", "hide_rate": 0.1, "hide_rates": {"prime": 0.3}}, "set one of them"),
        ({"hide": "at_random", "hide_rates": {"primes": 0.3}}, 'no source and not the target: did you mean "prime"?'),
        ({"hide": "at_random", "hide_rates": {"prime": 1.5}}, "hide_rates.prime = 1.5: must be a number from 0 to 1"),
        ({"hide": "at_random", "hide_rates": {"prime": True}}, "hide_rates.prime = True: must be a number"),
        ({"hide": "by_rank", "hide_rate": 0.6, "hide_skew": 1.0}, "hide_rate = 0.6: must be a number from 0 to 0.5"),
        ({"hide": "by_class", "hide_rate": 0.6}, "is not for by_class"),
        ({"hide": "by_class", "hide_rates": {"prime": 0.3}}, "hide_rates.prime = 0.3: must be 2 rates, one a class"),
        ({"hide": "by_class", "hide_rates": {"identity": (1, 0)}}, "must be 10 rates, one a class"),
        ({"hide": "positive_only", "hide_rates": {"identity": 1}}, "identity is multiclass: must be binary"),
        ({"hide": "one_task_each", "hide_rates": {"prime": 1}}, "is not for one_task_each"),
        ({"label_noise": {"prime": 1.1}}, "label_noise.prime = 1.1: must be a number from 0 to 1"),
        ({"label_noise": {"prime": 0.6}, "label_noise_asymmetry": 1.0}, "must be a number from 0 to 0.5"),
        ({"label_noise": {"identity": 0.6}, "label_noise_asymmetry": 1.0}, "is of binary tasks, and label_noise names"),
        ({"label_noise": {"at_least_five": 0.6}}, 'label_noise.at_least_five: "at_least_five" is no source'),
        ({"imbalance": {"identity": 0.1}}, "identity is multiclass: must be binary"),
        ({"imbalance": {"prime": 1.0}}, "imbalance.prime = 1.0: must be between 0 and 1, both excluded"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(changes, line):
    said = refusal(**changes)
    assert said.startswith("config.data.") and line in said


def test_noise_of_a_regression_task_may_be_above_one():
    changes = {"regime": "scratch", "data.source": (), "data.target": "dose", "data.label_noise": {"dose": 2.0}}
    dose = data.make_table("doses", np.ones((2, 1)), [Task("dose", "regression")], {"dose": np.ones(2)})
    trial = resolve(override(BASE, changes), dose)
    assert trial.config["data"]["label_noise"] == {"dose": 2.0}
