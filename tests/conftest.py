"""JAX as the tests want it: two CPU devices, no silent rank promotion."""

import os

import hypothesis

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")

#: Scripts that make golden files; they need PyTorch, which the tests do not.
collect_ignore_glob = ["golden/make_*.py"]

# The machines are shared: how long an example takes says nothing.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")
