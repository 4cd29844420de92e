"""Pytrees by path: what goes in comes out, and whatever does not fit is named, all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl import params

KEYS = st.text("ab.0 '[é/%2F5\n", min_size=1, max_size=3)
TREES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=4), max_leaves=12
).filter(lambda tree: isinstance(tree, dict))


def model(**extra):
    return {
        "backbone": {
            "dense_0": {"kernel": np.ones((4, 8)), "bias": np.ones(8)},
            "dense_1": {"kernel": np.ones((8, 8))},
        },
        "heads": {
            "even": {"kernel": np.ones((8, 1)), "bias": np.ones(1)},
            "digit": {"kernel": np.ones((8, 10))},
        },
        **extra,
    }


# --- paths ---


@given(TREES)
def test_flatten_and_unflatten_undo_each_other(tree):
    flat = params.flatten(tree)
    assert list(flat.values()) == jax.tree.leaves(tree)
    assert params.unflatten(flat) == tree
    assert params.flatten(params.unflatten(flat)) == flat


def test_paths_of_lists_and_tuples_are_their_indices():
    assert params.flatten({"a": [1, (2, None, 3)]}) == {"a/0": 1, "a/1/0": 2, "a/1/2": 3}


@jax.tree_util.register_pytree_with_keys_class
class Twice(tuple):
    """A pytree of others, whose keys are not what tells its leaves apart."""

    def tree_flatten_with_keys(self):
        return [(jax.tree_util.DictKey("a"), leaf) for leaf in self], None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(leaves)


def test_two_leaves_of_one_path_are_refused():
    with pytest.raises(ValueError, match='two leaves have the path "a"'):
        params.flatten(Twice((1, 2)))
    assert params.flatten({"a/b": 1, "a": {"b": 2}}) == {"a/b": 2, "a%2Fb": 1}
    with pytest.raises(ValueError, match='"a%25" and "a%" are one path'):
        params.unflatten({"a%25": 1, "a%": 2})


@pytest.mark.parametrize("flat", [{"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}, {"a/b/c": 2, "a": 1}])
def test_a_path_through_a_leaf_is_refused_in_either_order(flat):
    with pytest.raises(ValueError, match='goes through the leaf "a"'):
        params.unflatten(flat)


# --- selecting, splitting, combining ---


@given(TREES, st.data())
def test_combine_undoes_split_for_every_choice(tree, data):
    chosen = jax.tree.map(lambda _: data.draw(st.booleans()), tree)
    one, two = params.split(tree, chosen)
    assert params.combine(one, two) == tree
    assert params.combine(two, one) == tree
    assert len(jax.tree.leaves(one)) == sum(jax.tree.leaves(chosen))
    assert len(jax.tree.leaves(one)) + len(jax.tree.leaves(two)) == len(jax.tree.leaves(tree))


def test_frozen_leaves_have_no_gradient_and_come_back_as_they_were():
    tree = jax.tree.map(jnp.asarray, {"backbone": {"w": np.ones(3)}, "heads": {"t": np.ones(3)}})
    moving, frozen = params.split(tree, params.select(tree, ["heads/.*"]))

    def loss(moving):
        everything = params.combine(moving, frozen)
        return jnp.sum(everything["backbone"]["w"] * everything["heads"]["t"] ** 2)

    gradient = jax.grad(loss)(moving)
    assert list(params.flatten(gradient)) == ["heads/t"]
    np.testing.assert_array_equal(gradient["heads"]["t"], 2 * np.ones(3))


def test_select_matches_the_whole_path():
    tree = model()
    flat = params.flatten(params.select(tree, [".*/bias", "heads/digit/.*"]))
    chosen = {"backbone/dense_0/bias", "heads/even/bias", "heads/digit/kernel"}
    assert {path for path, hit in flat.items() if hit} == chosen
    assert not any(params.flatten(params.select(tree, [])).values())


@pytest.mark.parametrize("pattern", ["bias", "heads", "backbone/dense_2/.*", "kernel.*"])
def test_a_dead_pattern_is_refused_even_beside_a_live_one(pattern):
    with pytest.raises(ValueError, match=r"matches no parameter; paths: backbone/dense_0/bias, .*"):
        params.select(model(), [".*/bias", pattern])


# --- loading ---


def test_merge_takes_every_leaf_but_the_fresh():
    init, loaded = jax.tree.map(np.zeros_like, model()), model()
    loaded["heads"]["digit"]["kernel"] = np.ones((8, 3))
    merged = params.merge(init, loaded, fresh=["heads/digit/.*"])
    assert jax.tree.structure(merged) == jax.tree.structure(init)
    for path, leaf in params.flatten(merged).items():
        np.testing.assert_array_equal(leaf, 0 if path == "heads/digit/kernel" else 1)


def test_merge_of_a_tree_with_itself_is_the_tree():
    tree = model()
    merged = params.merge(tree, tree)
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, merged, tree))


def test_what_is_fresh_may_be_missing_and_nothing_else_may():
    tree = model()
    backbone = {"backbone": jax.tree.map(np.zeros_like, tree["backbone"])}
    merged = params.merge(tree, backbone, fresh=["heads/.*"])
    assert merged["backbone"]["dense_0"]["bias"] is backbone["backbone"]["dense_0"]["bias"]
    assert merged["heads"]["even"]["bias"] is tree["heads"]["even"]["bias"]
    with pytest.raises(ValueError, match=r"missing heads/digit/kernel, heads/even/bias, heads/even/kernel$"):
        params.merge(tree, backbone)


def test_merge_names_everything_that_does_not_fit_at_once():
    loaded = model(old={"w": np.ones(2), "v": np.ones(2)})
    loaded["backbone"]["dense_0"]["kernel"] = np.ones((4, 9))
    loaded["backbone"]["dense_0"]["bias"] = np.ones(8, np.float32)
    del loaded["backbone"]["dense_1"]
    with pytest.raises(ValueError, match=r"^parameters do not fit: ") as error:
        params.merge(
            model(),
            loaded,
            fresh=["heads/nothing"],
            rename=[("gone/.*", "there"), ("old/.*", "heads/even/bias")],
        )
    for problem in (
        "two loaded leaves become heads/even/bias",
        'rename pattern "gone/.*" matches nothing',
        'fresh pattern "heads/nothing" matches nothing',
        "missing backbone/dense_1/kernel",
        "shape of backbone/dense_0/kernel: loaded (4, 9), wanted (4, 8)",
        "dtype of backbone/dense_0/bias: loaded float32, wanted float64",
    ):
        assert problem in str(error.value)
    with pytest.raises(ValueError, match=r"extra old/v, old/w$"):
        params.merge(model(), model(old=loaded["old"]))


def test_merge_renames_in_order_and_with_groups():
    tree = model()
    loaded = {"encoder": tree["backbone"], "heads": tree["heads"]}
    merged = params.merge(tree, loaded, rename=[(r"encoder/(.*)", r"trunk/\1"), (r"trunk/(.*)", r"backbone/\1")])
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, merged, tree))


def test_merge_renames_the_whole_path_where_an_alternative_matches_a_part():
    assert params.merge({"new": np.ones(1)}, {"ab": np.zeros(1)}, rename=[("a|ab", "new")])["new"] == 0


def test_merge_renames_by_turns():
    # Two leaves that change places: each is renamed by the first pattern that fits, then by the next ones.
    a, b = np.zeros(2), np.ones(2)
    merged = params.merge({"a": a, "b": b}, {"a": b, "b": a}, rename=[("a", "tmp"), ("b", "a"), ("tmp", "b")])
    assert merged["a"] is a
    assert merged["b"] is b


# --- counts and the report ---


def test_counts_add_up_over_a_split():
    tree = model()
    one, two = params.split(tree, params.select(tree, ["heads/.*"]))
    assert params.count(tree) == 4 * 8 + 8 + 8 * 8 + 8 + 1 + 80
    assert params.count(one) + params.count(two) == params.count(tree)


def test_report_has_a_line_for_each_parameter_and_the_total():
    tree = model()
    lines = params.report(tree, params.select(tree, ["heads/even/.*"])).splitlines()
    assert len(lines) == len(jax.tree.leaves(tree)) + 1
    assert [line.split()[1] for line in lines if line.startswith("trainable")] == [
        "heads/even/bias",
        "heads/even/kernel",
    ]
    assert lines[-1] == "9 of 193 parameters train (4.7 %)"


def test_report_of_nothing_is_its_last_line():
    assert params.report({}, {}) == "0 of 0 parameters train (0.0 %)"
