"""The registry: what a name loads, what is kept, and what is refused."""

import re

import numpy as np
import pytest

from mtl.data import Table, load, make_table, register, registry
from mtl.tasks import Task

BINARY = Task("even", "binary")


@pytest.fixture
def sources(monkeypatch):
    monkeypatch.setattr(registry, "SOURCES", dict(registry.SOURCES))
    return registry.SOURCES


def make_source(value: float, rows: int = 3):
    def mine(rows: int = rows, names: tuple[str, ...] = ()) -> Table:
        return make_table("mine", np.full((rows, 1), value), [BINARY], {"even": np.arange(rows) % 2})

    return mine


def test_a_registered_source_loads_once_for_each_set_of_options(sources):
    source = register("mine")(make_source(1.0))
    assert sources["mine"] is source
    assert load("mine") is load("mine", rows=3)
    assert load("mine", rows=5) is not load("mine")
    assert len(load("mine", rows=5, names=["a", "b"])) == 5
    assert load("mine", names=["a"]) is load("mine", names=("a",))


def test_a_second_function_of_the_same_name_is_refused_and_a_reloaded_one_is_not(sources):
    code = "def mine(rows=3):\n    return make_table('mine', [[VALUE]] * rows, [BINARY], {'even': [1] * rows})\n"
    defined = []
    for value in (1.0, 2.0):  # a config file that ran again after a constant in it had changed
        scope = {"make_table": make_table, "BINARY": BINARY, "VALUE": value, "__name__": "config"}
        exec(compile(code, "config.py", "exec"), scope)  # noqa: S102
        defined.append(scope["mine"])
    register("mine")(defined[0])
    assert load("mine").x[0, 0] == 1
    register("mine")(defined[1])
    assert load("mine").x[0, 0] == 2

    def other(rows: int = 3) -> Table:
        return load("digits")

    with pytest.raises(ValueError, match=r'data "mine" is registered already, by config.mine: give .*other another'):
        register("mine")(other)
    register("closure")(make_source(1.0))
    with pytest.raises(ValueError, match="registered already"):
        register("closure")(make_source(2.0))  # the same code, another closure: not the same data


def test_load_refuses_what_does_not_exist(sources):
    def needs(rows: int) -> Table:
        return make_table("toy", np.ones((2, 2)), [BINARY], {"even": [0, 1]})

    def wrong(**anything: object) -> int:
        return 3

    register("needs")(needs)
    register("wrong")(wrong)
    for call, sentence in (
        (
            lambda: load("digit"),
            'data "digit" does not exist: did you mean "digits"? Valid: ',
        ),
        (lambda: load("digits", image=True), 'no option "image": did you mean "images"? Valid: images'),
        (lambda: load("latent", rhoo=1.0), 'data "latent" has no option "rhoo": did you mean "rho"?'),
        (lambda: load("needs"), 'data "needs": rows is missing: it has no default'),
        (lambda: load("needs", rows={}), 'data "needs": rows = {}: must be a whole number'),
        (lambda: load("wrong", a=1), "returned a int: must be a table of mtl.data.make_table"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            call()
