"""Which of the CPU's kernels lie in a training step, as it is traced for this backend."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks.engine import trial_of

from mtl.sweep.plan import make_plan, split_of, table_of, val_rows_of
from mtl.train import phase
from mtl.train.dataset import Data, make_data
from mtl.train.program import INIT, Hypers, TrainState, Weights, key_for
from mtl.train.trial import make_hypers

#: What ``mtl.cpu`` does on any backend: a plain product, GELU, attention as it is written down. (Attention's kernel
#: has the same forward pass, from whose lines JAX says that a gradient comes: it is not told apart here.)
_PLAIN = re.compile(r"rows\.(dense|gelu)|attention\.(attend|_forward|_heads|_beside|_scale)")


def traced(case: str) -> list[str]:
    """Return the kernels that a case's step runs through, as ``module.function`` of ``mtl.cpu``.

    The step is lowered and not compiled: every operation then says from which lines it came.

    Args:
      case: its name.
    """
    trial = trial_of(case)
    plan = make_plan([trial])
    stage = plan.nodes[plan.chains[trial.hash][-1]].stage
    program, table = stage.program, table_of(trial)
    data = make_data(table, [split_of(trial)], [program], val_rows_of(trial))
    lane = jax.tree.map(lambda a: a[0], make_hypers([0], [stage], [0]))

    def step(lane: Hypers, data: Data, begin: jax.Array, end: jax.Array) -> TrainState:
        weights = Weights(*program.model.init(key_for(jnp.uint32(0), INIT), jnp.zeros((1, *table.x.shape[1:]))))
        moving, frozen = phase.start(program, lane, weights)
        fixed = phase.fix(program, lane.split, weights, frozen, data)
        return phase.advance(program, lane, moving, fixed, data, begin, end)

    text = jax.jit(step).lower(lane, data, np.int32(0), np.int32(1)).as_text(debug_info=True)
    places = dict(re.findall(r'^(#loc\d+) = loc\("[^"]*mtl/cpu/(\w+)\.py"', text, re.MULTILINE))
    calls = re.findall(r'loc\("([^"]*)"\((#loc\d+)\)\)', text)
    found = {f"{places[at]}.{function}" for function, at in calls if at in places}
    return sorted(name for name in found if not _PLAIN.fullmatch(name))
