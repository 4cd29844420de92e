"""The embedding backbone against closed forms, PyTorch where it is installed, and what must change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.inputs import Structure
from mtl.models import anatomy, build, options_of, whole_numbers
from mtl.tasks import Task

IDS, WIDTH = 30, 5
TASKS = (Task("spam", "binary"),)


def model(**options):
    return build("embedding", {"vocabulary": IDS, "width": WIDTH, "hidden": (), **options}, TASKS)


def weights(of, seed=0):
    return of.init(jax.random.key(seed), jnp.zeros((1, 4), jnp.int32))


def texts(seed=0, rows=6, length=7):
    rng = np.random.default_rng(seed)
    x = rng.integers(1, IDS, (rows, length)).astype(np.int32)
    return jnp.asarray(np.where(np.arange(length) < rng.integers(1, length + 1, (rows, 1)), x, 0).astype(np.int32))


def test_it_is_the_mean_of_the_vectors_of_words():
    of, x = model(), texts()
    params, state = weights(of)
    table = np.asarray(params["backbone"]["embed"]["embedding"], np.float64)
    right = np.stack([table[row[row != 0]].mean(axis=0) for row in x])
    np.testing.assert_allclose(of.features(params, state, x), right, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(of.features(params, state, jnp.zeros((2, 4), jnp.int32)), np.zeros((2, WIDTH)))


def test_it_is_pytorchs_embedding_bag():
    torch = pytest.importorskip("torch", reason="needs PyTorch, which only benchmarks install")
    of, x = model(), texts()
    params, state = weights(of)
    table = torch.tensor(np.array(params["backbone"]["embed"]["embedding"]))
    bag = torch.nn.EmbeddingBag.from_pretrained(table, mode="mean", padding_idx=0)
    np.testing.assert_allclose(of.features(params, state, x), bag(torch.tensor(x)).numpy(), rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), more=st.integers(0, 4))
def test_the_order_of_words_and_padding_change_nothing(seed, more):
    of, x = model(hidden=(4,)), texts(seed)
    params, state = weights(of)
    found = of.features(params, state, x)
    rng = np.random.default_rng(seed)
    other = rng.permuted(np.pad(x, ((0, 0), (0, more))), axis=1)
    np.testing.assert_allclose(of.features(params, state, jnp.asarray(other)), found, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_ids_are_but_names(seed):
    """Another numbering of the words, with the vectors numbered alike, gives the same outputs, to the bit."""
    of, x = model(hidden=(4,)), texts(seed)
    params, state = weights(of)
    order = np.concatenate([[0], 1 + np.random.default_rng(seed).permutation(IDS - 1)])
    table = params["backbone"]["embed"]["embedding"]
    renamed = {**params["backbone"], "embed": {"embedding": table.at[order].set(table)}}
    found = of.features({**params, "backbone": renamed}, state, jnp.asarray(order, jnp.int32)[x])
    np.testing.assert_array_equal(found, of.features(params, state, x))


def test_padding_has_no_gradient():
    of, x = model(hidden=(4,)), texts()
    params, state = weights(of)
    grads = jax.grad(lambda p: of.features(p, state, x).sum())(params)["backbone"]["embed"]["embedding"]
    unused = np.setdiff1d(np.arange(IDS), np.asarray(x[x != 0]))
    assert 0 in unused
    np.testing.assert_array_equal(grads[unused], 0)
    assert (np.abs(grads[np.unique(x[x != 0])]).sum(axis=1) > 0).all()


def test_its_parts():
    of = model(hidden=(4, 3), dropout=0.5)
    shape = Structure((("", (7,), IDS),))
    own = anatomy(of, shape)
    assert own.blocks == ("backbone/embed", "backbone/dense_0", "backbone/dense_1")
    assert own.params["backbone"]["embed"]["embedding"].shape == (IDS, WIDTH)
    assert not whole_numbers(of, shape)
    params, state = weights(of)
    dropped = of.trunk(params["backbone"], state, texts(), train=True, rng=jax.random.key(1))[0]
    assert not np.array_equal(dropped, of.features(params, state, texts()))


def test_a_vocabulary_that_is_left_open():
    one, two = Structure((("", (7,), IDS),)), Structure((("a", (7,), IDS), ("b", (7,), IDS + 1)))
    assert options_of("embedding", {}, one) == {"vocabulary": IDS}
    assert options_of("embedding", {"vocabulary": IDS + 1}, one) == {"vocabulary": IDS + 1}
    assert options_of("mlp", {}, one) == {}
    with pytest.raises(ValueError, match=r"vocabulary is missing: .*inputs of shape \(64,\) are no ids: .*declared"):
        options_of("embedding", {}, (64,))
    with pytest.raises(ValueError, match="vocabulary is missing: it has no default"):
        options_of("embedding", {}, two)
    with pytest.raises(ValueError, match=r"model\.options\.vocabulary = 3: must be at least 30, the ids of the inputs"):
        options_of("embedding", {"vocabulary": 3}, one)


@pytest.mark.parametrize("shape", [Structure((("", (7,), IDS),)), Structure((("a", (7,), 0),))])
def test_ids_are_no_numbers_to_an_mlp(shape):
    """They would train, on what means nothing."""
    with pytest.raises(ValueError, match=r'model\.name = "mlp": inputs are ids, or several leaves: must be one array'):
        anatomy(build("mlp", {}, TASKS), shape)


@pytest.mark.parametrize("shape", [(7,), Structure((("a", (7,), IDS),)), Structure((("", (7, 2), IDS),))])
def test_what_is_no_text_is_refused(shape):
    with pytest.raises(ValueError, match=r'model\.name = "embedding": inputs are no texts'):
        anatomy(model(), shape)


def test_bfloat16_rounds_vectors_and_no_ids():
    of = build("embedding", {"vocabulary": 600, "width": WIDTH, "hidden": ()}, TASKS, dtype="bfloat16")
    params, state = weights(of)
    x = jnp.array([[513], [515]])  # 512 and 516 in bfloat16.
    found = of.features(params, state, x)
    right = params["backbone"]["embed"]["embedding"][jnp.array([513, 515])]
    np.testing.assert_allclose(found, right, rtol=1e-2)
