"""Regimes: each is the phases that the design's table says, over the very parameters it says, in as many updates."""

import pytest

from mtl import params, regimes
from mtl.config import ConfigError
from mtl.regimes import Phase
from mtl.train.trial import shapes
from tests.train.build import INPUTS, stages, trial

SOURCE, TARGET = ("kind", "rare"), ("goal",)
BOTH = (*SOURCE, *TARGET)


def dense(*layers):
    return {f"backbone/dense_{i}/{leaf}" for i in layers for leaf in ("bias", "kernel")}


def low_rank(*layers):
    return {f"backbone/dense_{i}/+lora/{leaf}" for i in layers for leaf in "ab"}


def heads(*tasks):
    return {f"heads/{t}/{leaf}" for t in tasks for leaf in ("bias", "kernel")}


def table(blocks):
    """Return {regime: ((tasks, parameters that move, parameters that start fresh, rate, share of updates), …)}.

    Shares are of the source's budget (first number) and of the target's (second).
    """
    every, head = dense(*range(blocks)), heads(*TARGET)
    source = (SOURCE, every | heads(*SOURCE), set(), "source_lr", (1, 0))
    step = 1 / (blocks + 1)
    unfreezing = [
        (TARGET, head | dense(*range(blocks - k, blocks)), head if k == 0 else set(), "lr", (0, step))
        for k in range(blocks + 1)
    ]
    return {
        "scratch": ((TARGET, every | head, set(), "lr", (1, 1)),),
        "random_probe": ((TARGET, head, head, "lr", (1, 1)),),
        "linear_probe": (source, (TARGET, head, head, "lr", (0, 1))),
        # In closed form: no rate, one step on whatever labels there are.
        "ridge_probe": (source, (TARGET, head, head, None, None)),
        "finetune": (source, (TARGET, every | head, head, "lr", (0, 1))),
        "lora": (source, (TARGET, head | low_rank(*range(blocks)), head, "lr", (0, 1))),
        "lp_ft": (source, (TARGET, head, head, "lr", (0, 1 / 2)), (TARGET, every | head, set(), "lr", (0, 1 / 2))),
        "gradual": (source, *unfreezing),
        "multitask": ((BOTH, every | heads(*BOTH), set(), "lr", (1, 1)),),
        "multitask_best_each": ((BOTH, every | heads(*BOTH), set(), "lr", (1, 1)),),
        "multitask_finetune": (
            (BOTH, every | heads(*BOTH), set(), "source_lr", (1, 0)),
            (TARGET, every | head, set(), "lr", (0, 1)),
        ),
        # More that the table's text adds: controls (equal examples, a scaling of its own), and what tunes the source's
        # rate. A joint batch has 8 rows of each of three tasks.
        "multitask_examples": ((BOTH, every | heads(*BOTH), set(), "lr", (1 / 3, 1 / 3)),),
        "scratch_own_scale": ((TARGET, every | head, set(), "lr", (1, 1)),),
        # No network: a model of scikit-learn, which neither rate nor budget decides.
        "logistic_regression": ((TARGET, head, set(), None, None),),
        "forest": ((TARGET, head, set(), None, None),),
        "source": (source,),
    }


#: Updates: all shares of both, for 1 to 3 blocks, are whole numbers, thirds of their sum too.
BUDGET = (150, 120)
RATES = {"lr": 0.03, "source_lr": 0.01}


def expanded(regime, blocks, **changes):
    names = {
        "model.options": {"hidden": (5,) * blocks},
        "source.total_steps": BUDGET[0],
        "target.total_steps": BUDGET[1],
        **RATES,
    }
    return trial(regime=regime, **(names | changes))


def test_the_table_names_every_regime():
    assert set(table(2)) == set(regimes.REGIMES)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("regime", list(table(2)))
def test_a_regime_is_what_the_table_says(regime, blocks):
    resolved = expanded(regime, blocks)
    found = list(zip(stages(resolved), resolved.phases, strict=True))
    expected = table(blocks)[regime]
    assert len(found) == len(expected)
    for (stage, phase), (tasks, moves, fresh, rate, shares) in zip(found, expected, strict=True):
        assert stage.program.tasks == phase.tasks == tasks
        assert set(stage.program.trainable) == moves
        assert set(stage.fresh) == fresh
        if rate is None:
            solver = {"ridge_probe": "ridge"}.get(regime, regime)
            assert (stage.hypers.lr, stage.steps, phase.solver) == (0.0, 1, solver)
            continue
        assert phase.solver == "gradient"
        assert stage.hypers.lr == phase.lr == RATES[rate]
        assert stage.steps == pytest.approx(shares[0] * BUDGET[0] + shares[1] * BUDGET[1], abs=1e-6)


@pytest.mark.parametrize("blocks", [2, 3])
def test_what_does_not_move_in_any_phase_is_what_no_phase_is_about(blocks):
    model = expanded("finetune", blocks).model()
    every = set(params.flatten(shapes(model, (INPUTS,)).params))
    assert every == dense(*range(blocks)) | heads(*BOTH)
    for regime, phases in table(blocks).items():
        moved = set().union(*(set(s.program.trainable) for s in stages(expanded(regime, blocks))))
        assert moved == set().union(*(p[1] for p in phases))
        # No head of a task whose labels are not seen moves.
        assert moved & heads(*BOTH) == heads(*{t for p in phases for t in p[0]})


USES_SOURCE = ["linear_probe", "finetune", "lora", "lp_ft", "gradual", "multitask", "multitask_finetune"]


def updates(resolved):
    return sum(phase.total_steps for phase in resolved.phases)


@pytest.mark.parametrize("blocks", [2, 3])
@pytest.mark.parametrize(
    "budget",
    [
        {},
        {
            "source.total_steps": 0,
            "target.total_steps": 0,
            "source.total_examples": 8 * BUDGET[0],
            "target.total_examples": 8 * BUDGET[1],
        },
        # 70 source rows and 32 training labels of the target (n = 40, a fifth of them validation).
        {
            "source.total_steps": 0,
            "target.total_steps": 0,
            "source.total_epochs": 1200 / 70,
            "target.total_epochs": 30.0,
        },
    ],
    ids=["steps", "examples", "epochs"],
)
@pytest.mark.parametrize("sampling", ["per_task", "rows"])
def test_all_regimes_have_one_total_of_updates(blocks, budget, sampling):
    changes = {"joint_sampling": sampling} | budget
    alone = ["scratch", "random_probe", "scratch_own_scale"]
    counts = {r: updates(expanded(r, blocks, **changes)) for r in [*USES_SOURCE, *alone]}
    assert set(counts.values()) == {sum(BUDGET)}
    longer = {r: updates(expanded(f"{r}@3", blocks, **changes)) for r in [*USES_SOURCE, *alone]}
    assert set(longer.values()) == {3 * sum(BUDGET)}
    fewer = expanded("multitask_examples", blocks, **changes)
    assert sum(p.total_steps * p.rows for p in fewer.phases) == 8 * sum(BUDGET)


def test_a_regime_at_a_larger_budget_is_a_control_and_nothing_else_may_have_such_a_name():
    found = regimes.get("finetune@2")
    assert found.control and "2 times the budget" in found.summary
    own = {"mine": regimes.plain((Phase(total_steps=5), Phase(total_examples=7), Phase(total_epochs=0.5)))}
    assert [(p.total_steps, p.total_examples, p.total_epochs) for p in regimes.get("mine@4", own).expand(1)] == [
        (20, 0, 0.0),
        (0, 28, 0.0),
        (0, 0, 2.0),
    ]
    for wrong in ("scratch@", "scratch@1", "scratch@0", "scratch@x", "scratch@2.5", "scratch@-2"):
        with pytest.raises(ValueError, match=r'behind the @ must be how often its budget is taken, as in "scratch@2"'):
            regimes.get(wrong)
    with pytest.raises(ValueError, match=r'regime = "scrach@2": did you mean "scratch"|regime = "scrach@2"'):
        regimes.get("scrach@2")
    with pytest.raises(ValueError, match="a name must have no @"):
        regimes.register("a@2", regimes.REGIMES["scratch"])
    with pytest.raises(ConfigError, match=r"^config\.regimes\.a@2: a name must have no @"):
        expanded("scratch", 2, regimes={"a@2": (Phase(),)})


@pytest.mark.parametrize(("source", "target"), [(7, 5), (13, 1), (1, 1), (101, 3)])
def test_where_budgets_do_not_divide_they_agree_to_an_update_a_phase(source, target):
    for regime in [*USES_SOURCE, "scratch"]:
        resolved = expanded(regime, 3, **{"source.total_steps": source, "target.total_steps": target})
        assert all(phase.total_steps >= 1 for phase in resolved.phases)
        assert abs(updates(resolved) - (source + target)) <= len(resolved.phases)


def test_controls_are_what_a_verdict_must_not_recommend():
    controls = {"random_probe", "multitask_examples", "multitask_best_each", "scratch_own_scale", "source"}
    controls |= set(regimes.REFERENCES)
    assert {name for name, r in regimes.REGIMES.items() if r.control} == controls
    assert all(r.summary and "\n" not in r.summary for r in regimes.REGIMES.values())


@pytest.mark.parametrize("blocks", [2, 3])
def test_no_regime_lets_the_targets_labels_into_a_source_phase(blocks):
    for regime in USES_SOURCE:
        for phase in expanded(regime, blocks).phases:
            if phase.tasks == SOURCE:
                assert not any("goal" in pattern for pattern in (*phase.trainable, *phase.fresh))


@pytest.mark.parametrize("regime", USES_SOURCE)
def test_without_a_source_a_regime_that_trains_on_it_is_refused(regime):
    with pytest.raises(
        ValueError, match=rf'^config\.data\.source = \(\): regime "{regime}" trains on the source; name'
    ):
        expanded(regime, 2, **{"data.source": ()})


def test_without_a_source_the_others_run():
    for regime in ("scratch", "random_probe", "scratch@2"):
        assert all(phase.tasks == TARGET for phase in expanded(regime, 2, **{"data.source": ()}).phases)


def test_patterns_of_names_that_need_no_care_are_spelled_as_they_were_so_that_addresses_stay():
    plain = ("even", "NR-AR", "a_b", "class 1", "Gr\u00f6\u00dfe", "a&b", "#1", "x:y", "~", "<b>", "'")
    for name in plain:
        assert regimes.trainable_patterns("head", (name,), ()) == (f"heads/{name}/.*",)
        assert regimes.fresh_patterns(("head",), (name,)) == (f"heads/{name}/.*",)


def of_its_own(**fields):
    joint = {"tasks": "source+target", "budget": "source+target", "sampling": "one_task"}
    phases = (Phase(**joint, **fields), Phase(trainable=("heads/goal/.*", "backbone/dense_1/bias")))
    return trial(regime="mine", regimes={"mine": phases}, round_steps=3, temperature=1.0)


def test_a_phase_has_a_batch_a_temperature_and_rounds_of_its_own():
    plain, own = of_its_own(), of_its_own(batch=16, temperature=2.0, round_steps=6)
    first, second = own.phases
    assert (first.batch, first.temperature, first.round_steps) == (16, 2.0, 6)
    assert (plain.phases[0].batch, plain.phases[0].temperature, plain.phases[0].round_steps) == (8, 1.0, 3)
    # As many updates, of twice as many examples; the next phase has the config's batch.
    assert first.total_steps == plain.phases[0].total_steps and second == plain.phases[1]
    program = stages(own)[0].program
    assert (program.batch, program.temperature, program.round_steps) == (16, 2.0, 6)
    # To say what the config says is to say nothing.
    assert of_its_own(batch=8, temperature=1.0, round_steps=3).hash == plain.hash != own.hash
    # Several patterns choose all that any of them does.
    assert set(stages(own)[1].program.trainable) == {*heads("goal"), "backbone/dense_1/bias"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch": -1}, "batch = -1: must be a whole number, at least 0"),
        ({"temperature": -1.0}, "temperature = -1.0: must be a finite number, at least 0"),
        ({"round_steps": 2}, 'regime "mine": round_steps = 2: must be 0, or at least 3'),
        ({"round_steps": 5000}, "round_steps = 5000: must be a whole number from 0 to 4096"),
    ],
)
def test_what_a_phase_cannot_have_is_said(fields, said):
    with pytest.raises(ConfigError, match=said):
        of_its_own(**fields)
