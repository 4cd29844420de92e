"""What it cost to train the weights that trials begin from, where a result tells."""

from __future__ import annotations

import functools

from mtl.sweep.documents import IDENTIFIER
from mtl.sweep.store import StoreError, Workdir
from mtl.sweep.weights import weights_at

#: What a trial is charged with, see ``evaluate``.
COSTS = ("steps", "examples", "flops", "seconds")


@functools.lru_cache(maxsize=16)
def cost_of_weights(path: str, sha256: str) -> dict[str, float] | None:
    """Return what training the weights at an ``init.path`` took; nothing if they are no trial's of ours.

    A trial's model lies in ``WORKDIR/trials/HASH`` beside its result, which says what it took and the model's sha256.

    Args:
      path: where the weights are.
      sha256: theirs.
    """
    file = weights_at(path).absolute()
    trial = file.parent
    if trial.parent.name != "trials" or not IDENTIFIER.fullmatch(trial.name):
        return None
    try:
        result = Workdir(trial.parent.parent).result(trial.name)
    except StoreError:  # Of a version that is not read: as good as none.
        return None
    if result is None or result.get("files", {}).get(file.name, {}).get("sha256") != sha256:
        return None
    cost = {name: result["cost"][name] for name in COSTS}
    return None if None in cost.values() else cost
