"""Several targets: which trials a study comes to, which tasks each sees, and that one target is what it was."""

import re

import pytest

from mtl.config import ConfigError, default, flatten, override, resolve
from mtl.data import digits_table
from mtl.regimes import REGIMES, Phase, Regime
from mtl.sweep.plan import make_plan, split_of
from mtl.sweep.study import make_sweep

TABLE = digits_table()
TARGETS = ("even", "prime", "has_loop")
BASE = override(
    flatten(default()),
    {
        "name": "several", "data.targets": TARGETS, "data.source": (), "data.target": "prime", "regime": "scratch",
        "source.total_steps": 20, "target.total_steps": 30, "model.options": {"hidden": (4,)},
    },
)  # fmt: skip


def trial(**changes):
    return resolve(override(BASE, {k.replace("__", "."): v for k, v in changes.items()}), TABLE)


def test_a_network_for_one_target_has_its_head_alone_and_a_joint_one_has_all():
    alone, joint, both = (trial(regime=r) for r in ("scratch", "multitask", "multitask_finetune"))
    assert [t.name for t in alone.tasks] == ["prime"] and alone.targets == ("prime",)
    assert [t.name for t in joint.tasks] == list(TARGETS) and joint.targets == TARGETS and joint.target == ""
    assert [p.tasks for p in both.phases] == [TARGETS, ("prime",)] and both.targets == ("prime",)
    assert both.asked == alone.asked == joint.asked == TARGETS


def test_a_joint_network_for_each_target_trains_on_all_and_is_judged_by_one():
    joint, each = trial(regime="multitask"), trial(regime="multitask_best_each")
    assert each.phases == joint.phases and each.tasks == joint.tasks
    assert each.targets == each.judging == ("prime",) and joint.judging == TARGETS
    keys = {
        make_plan([t]).chains[t.hash] for t in (joint, each, trial(regime="multitask_best_each", data__target="even"))
    }
    assert len(keys) == 3  # Each keeps a state of its own.
    own = {"mine": {"phases": ({"tasks": "source+target", "budget": "source+target"},), "judge": "each"}}
    assert trial(regime="mine", regimes=own).judging == ("prime",)
    with pytest.raises(ConfigError, match='judge = \'some\': must be "all" or "each"'):
        trial(regime="mine", regimes={"mine": {**own["mine"], "judge": "some"}})


def test_a_joint_network_is_the_same_whatever_target_is_named():
    assert trial(regime="multitask", data__target="even").hash == trial(regime="multitask", data__target="").hash
    assert trial(data__target="even").hash != trial(data__target="prime").hash


def test_a_row_comes_with_all_its_labels_unless_another_way_is_named():
    assert trial(regime="multitask").phases[0].sampling == "rows"
    assert trial(regime="multitask", joint_sampling="per_task").phases[0].sampling == "per_task"
    assert trial(regime="multitask").phases[0].total_steps == 50  # As many updates as one network has.
    apart = trial(regime="multitask", data__rows="disjoint", data__source=("at_least_five",))
    assert apart.phases[0].sampling == "per_task"
    assert apart.config["data"]["source_size"] == 797


def test_one_target_asks_what_it_always_asked():
    of_one = {"data.source": ("identity",), "data.target": "even", "data.targets": ()}
    as_ever = resolve(override(BASE, of_one), TABLE)
    assert "targets" not in as_ever.config and "rows" not in as_ever.config["data"]
    spelled = resolve(override(BASE, of_one | {"data.target": "prime", "data.targets": ("even",)}), TABLE)
    assert spelled.hash == as_ever.hash
    shared = resolve(override(BASE, of_one | {"data.rows": "shared"}), TABLE)
    assert shared.hash != as_ever.hash and shared.targets == ("even",)
    assert split_of(shared).train["identity"].sum() == split_of(shared).train["even"].sum() == 80


def test_all_is_every_task_that_is_no_source():
    found = trial(data__targets=("all",), data__source=("identity",), regime="finetune")
    assert found.asked == tuple(t.name for t in TABLE.tasks if t.name != "identity")
    assert [p.tasks for p in found.phases] == [("identity",), ("prime",)]


def test_splits_of_all_trials_of_a_study_are_one():
    trials = [trial(), trial(data__target="even"), trial(regime="multitask")]
    assert len({id(split_of(t)) for t in trials}) == 1


def test_a_sweep_has_a_trial_a_target_or_one_for_all_and_shares_the_joint_phase():
    entries = [{"regime": r, "seed": s} for r in ("scratch", "multitask", "multitask_finetune") for s in (0, 1)]
    sweep = make_sweep("s", BASE, entries)
    of = {}
    for member in sweep.members:
        of.setdefault(member.changes["regime"], []).append(member.changes.get("data.target"))
    assert of == {"scratch": [*TARGETS] * 2, "multitask": [None] * 2, "multitask_finetune": [*TARGETS] * 2}
    assert sweep.base["data.target"] == "" and sweep.base["data.rows"] == "shared"
    assert [m.changes for m in make_sweep("s", sweep.base, [m.changes for m in sweep.members]).members] == [
        m.changes for m in sweep.members
    ]
    plan = make_plan(sweep.trials)
    # A seed: three scratch phases, one of multitask, one joint phase that three others go on from.
    assert len(plan.nodes) == 2 * (3 + 1 + 1 + 3)


def test_phases_on_shared_rows_are_those_of_their_number_of_labels():
    few, many = (trial(regime="multitask_finetune", data__target_size=n) for n in (20, 200))
    assert len(make_plan([few, many]).nodes) == 4
    source = {"regime": "finetune", "data__source": ("at_least_five",)}
    few, many = (trial(**source, data__target_size=n) for n in (20, 200))
    assert len(make_plan([few, many]).nodes) == 4
    few, many = (trial(**source, data__rows="disjoint", data__target_size=n) for n in (20, 200))
    assert len(make_plan([few, many]).nodes) == 3


def test_regimes_of_groups_train_those_alone(monkeypatch):
    monkeypatch.setitem(REGIMES, "pair", Regime((Phase(tasks=("even", "prime")),), "two of them"))
    found = trial(regime="pair")
    assert found.targets == ("even", "prime") and [t.name for t in found.tasks] == ["even", "prime"]
    assert not REGIMES["pair"].alone and REGIMES["gradual"].alone and not REGIMES["multitask"].alone


def test_an_epoch_of_a_joint_phase_goes_through_its_rows_once():
    changes = {"source__total_steps": 0, "target__total_steps": 0, "batch_size": 10, "data__target_size": 100}
    epochs = {"source__total_epochs": 2.0, "target__total_epochs": 3.0}
    joint, alone = trial(regime="multitask_finetune", **changes, **epochs).phases
    assert (joint.total_steps, alone.total_steps) == (16, 24)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.target": "identity"}, 'config.data.target = "identity": regime "scratch" trains a network for one'),
        ({"data.targets": ("even", "evn")}, 'config.data.targets: no task "evn" in digits: did you mean "even"?'),
        ({"data.targets": ("even", "even")}, "config.data.targets = ('even', 'even'): names a task twice"),
        ({"data.targets": ("even", 3)}, "config.data.targets holds 3: must hold names of tasks"),
        ({"data.source": ("even",)}, 'config.data.target = "even": is also a source'),
        ({"regime": "finetune"}, "config.data.source = (): regime"),
        ({"regime": "multitask_finetune", "source.total_steps": 0}, "config.source: nothing set, and regime"),
        ({"metric": "r2"}, 'config.metric = "r2": the target even is binary'),
    ],
)
def test_what_cannot_be_is_refused(changes, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        resolve(override(BASE, changes), TABLE)
