"""From a resolved trial to its stages: patterns are checked and spelled out, and nothing is compiled."""

import jax
import jax.numpy as jnp
import pytest

from mtl import config, regimes
from mtl.regimes import Phase, Regime
from tests.train.build import stages, trial


@pytest.fixture(autouse=True)
def no_compilation(monkeypatch):
    """A stage's errors come before anything is compiled (but for the making of one scalar)."""
    jnp.uint32(0)

    def refuse(*args, **kwargs):
        raise AssertionError("something was compiled")

    monkeypatch.setattr(jax._src.compiler, "backend_compile_and_load", refuse)


@pytest.fixture
def regime(monkeypatch):
    """A regime for the length of a test: ``regime(phases…)`` returns its name."""

    def make(*phases):
        monkeypatch.setitem(regimes.REGIMES, "mine", Regime(phases, "for a test"))
        return "mine"

    return make


HEAD = ("heads/goal/bias", "heads/goal/kernel")
DENSE_1 = ("backbone/dense_1/bias", "backbone/dense_1/kernel")


def test_patterns_are_spelled_out_without_other_tasks_heads(regime):
    name = regime(
        Phase(trainable="head"), Phase(trainable="last_1"), Phase(trainable=r".*/kernel"), Phase(fresh=("head",)),
        Phase(trainable=r"(heads|backbone/dense_1)/.*"),
    )  # fmt: skip
    head, last, kernels, fresh, regex = stages(trial(regime=name))
    assert head.program.trainable == HEAD
    assert last.program.trainable == (*DENSE_1, *HEAD)
    assert kernels.program.trainable == ("backbone/dense_0/kernel", "backbone/dense_1/kernel", "heads/goal/kernel")
    assert set(fresh.fresh) == set(HEAD)
    # Two spellings of one choice are one program.
    assert regex.program == last.program


def test_gradual_goes_by_depth_from_the_top():
    found = [s.program.trainable for s in stages(trial(regime="gradual"))[1:]]
    assert found[0] == HEAD
    assert found[1] == (*DENSE_1, *HEAD)
    assert set(found[2]) == {*HEAD, *DENSE_1, "backbone/dense_0/bias", "backbone/dense_0/kernel"}


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase(trainable="backbone/dens_0/.*"), r'pattern "backbone/dens_0/\.\*" matches no parameter; paths:'),
        (Phase(trainable="backbone/dense_0"), 'pattern "backbone/dense_0" matches no parameter'),
        (Phase(fresh=("backbone/dense_9/.*",)), r'pattern "backbone/dense_9/\.\*" matches no parameter'),
        (Phase(trainable="heads/kind/.*"), r"leaves nothing to train for tasks \('goal',\)"),
        (Phase(trainable="last_3"), "the backbone has 2 blocks: last_1 to last_2 are valid"),
        (Phase(trainable="last_0"), "last_1 to last_2 are valid"),
        (Phase(trainable="last_x"), "last_1 to last_2 are valid"),
        (Phase(trainable="heads/("), "heads/"),
        (Phase(tasks=("goal", "gaol")), "gaol"),
        (Phase(tasks="targets"), '"source", "target"'),
        (Phase(lr="learning_rate"), '"mine": lr = "learning_rate"'),
        (Phase(lr=-1.0), "lr = -1"),
        (Phase(lr=float("nan")), "lr = nan"),
        (Phase(sampling="per_tasks"), 'sampling = "per_tasks": did you mean "per_task"'),
        (Phase(trunk_mode="trian"), 'trunk_mode = "trian": did you mean "train"'),
        (Phase(select="beste"), 'select = "beste": did you mean "best"'),
        (Phase(budget="targets"), 'budget = "targets": did you mean "target"'),
        (Phase(total_steps=-5), "total_steps = -5"),
        (Phase(share=0.0), "share = 0"),
        (Phase(total_steps=5, total_epochs=1.0), "total_steps and total_epochs"),
    ],
)
def test_mistakes_in_a_regime_are_config_errors(regime, phase, message):
    with pytest.raises(config.ConfigError, match=message) as error:
        stages(trial(regime=regime(phase)))
    assert "regime" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_user_registers_a_regime_once():
    one = Regime((Phase(),), "one")
    try:
        regimes.register("of_a_test", one)
        regimes.register("of_a_test", Regime((Phase(),), "one"))  # A config file may run twice.
        with pytest.raises(ValueError, match='"of_a_test" is already registered'):
            regimes.register("of_a_test", Regime((Phase(share=0.5),), "another"))
        assert regimes.get("of_a_test") is not None
    finally:
        regimes.REGIMES.pop("of_a_test", None)
    with pytest.raises(ValueError, match='did you mean "finetune"'):
        regimes.get("finetun")
