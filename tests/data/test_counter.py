"""Draws by counter: SplitMix64's published values, independence of batch, uniformity."""

import numpy as np
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data.counter import Counter, mix


def splitmix64(state):
    """Steele, Lea and Flood 2014, in plain integers."""
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def test_mix_is_splitmix64_s_finaliser():
    assert splitmix64(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # the generator's first output for seed 0
    values = [0, 1, 2**63, 2**64 - 1, 0x9E3779B97F4A7C15]
    np.testing.assert_array_equal(
        mix(np.array(values, np.uint64)), np.array([splitmix64(v) for v in values], np.uint64)
    )


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**63), rows=st.lists(st.integers(0, 2**40), min_size=1, max_size=20), name=st.text(max_size=5)
)
def test_a_draw_depends_on_seed_name_and_example_alone(seed, rows, name):
    index = np.array(rows)
    draw = Counter(seed, index)
    for i, row in enumerate(rows):
        assert Counter(seed, np.array([row]))(name)[0] == draw(name)[i] == draw.only(np.array([i]))(name)[0]
    assert ((draw(name) >= 0) & (draw(name) < 1)).all()
    assert set(draw.integers(name, 7).tolist()) <= set(range(7))


def test_draws_are_uniform_and_streams_do_not_go_together():
    index = np.arange(20_000)
    streams = [Counter(seed, index)(name) for seed in (0, 1, 2) for name in ("a", "b", "car size")]
    for stream in streams:
        assert scipy.stats.kstest(stream, "uniform").pvalue > 1e-4
        assert abs(np.corrcoef(stream[1:], stream[:-1])[0, 1]) < 0.03
    off = np.corrcoef(streams)[np.triu_indices(len(streams), 1)]
    assert np.abs(off).max() < 0.03
