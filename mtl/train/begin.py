"""What a phase begins from: loaded weights, parts made fresh, and batch statistics together with their parameters."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import jax

from mtl import params as paths
from mtl.train.program import Weights

PyTree = Any


def freshen(weights: Weights, initial: Weights, fresh: Sequence[str]) -> Weights:
    """Return weights with the parameters at the paths ``fresh`` back at their initial values.

    Batch statistics start anew with the parameters that they belong to, see ``follow``.

    Args:
      weights: as the phase before left them.
      initial: the replicate's initial weights.
      fresh: whole paths of parameters.
    """
    if not fresh:
        return weights
    anew = set(fresh)
    params = _taken(anew, initial.params, weights.params)
    with_them = follow(paths.flatten(weights.state), paths.flatten(weights.params), anew)
    return Weights(params, _taken(with_them, initial.state, weights.state))


def load(
    initial: Weights, params: PyTree, state: PyTree, fresh: Sequence[str] = (), rename: Sequence[tuple[str, str]] = ()
) -> Weights:
    """Return weights with loaded values in them, every leaf accounted for (see ``params.merge``).

    Batch statistics are loaded, renamed and left fresh together with the parameters that they belong to. A model
    without any has no use for those that were loaded.

    Args:
      initial: the replicate's initial weights; shapes are enough to check.
      params, state: as ``checkpoint.load_weights`` returns them.
      fresh: patterns of parameters that stay as they are.
      rename: (pattern, replacement) pairs on the loaded paths.

    Raises:
      ValueError: as ``params.merge``; and if statistics are missing.
    """
    merged = paths.merge(initial.params, params, fresh, rename)
    if not initial.state:
        return Weights(merged, initial.state)
    wanted, found = paths.flatten(initial.state), _renamed(params, state, rename)
    of_wanted = follow(wanted, *_matching(paths.flatten(initial.params), fresh))
    of_found = follow(found, *_matching([renamed_path(p, rename) for p in paths.flatten(params)], fresh))
    needed = [p for p in wanted if p not in of_wanted]
    if needed and not found:
        raise ValueError(
            f"it holds no batch statistics, and the model has them ({', '.join(needed[:3])}, …): a trunk without its "
            "own normalises by zeros and ones"
        )
    kept = {p: leaf for p, leaf in found.items() if p not in of_found | of_wanted}
    return Weights(merged, paths.merge(initial.state, paths.unflatten(kept), [re.escape(p) for p in of_wanted]))


def follow(statistics: Iterable[str], params: Iterable[str], fresh: Collection[str]) -> set[str]:
    """Return the batch statistics that are fresh where some parameters are.

    Statistics belong to the parameters of their own module: those of ``batch_stats/block_0/norm/mean`` to
    ``backbone/block_0/norm/…``; of a module that has none, to those of the module around it. They are fresh if all of
    these are.

    Args:
      statistics: their paths, each below the name of its collection.
      params: all paths of parameters.
      fresh: those of them that are fresh.

    >>> params = ["backbone/a/kernel", "backbone/a/norm/scale", "backbone/a/norm/bias", "backbone/b/kernel"]
    >>> statistics = ["batch_stats/a/norm/mean", "batch_stats/b/norm/mean"]
    >>> sorted(follow(statistics, params, params[1:]))
    ['batch_stats/a/norm/mean', 'batch_stats/b/norm/mean']
    >>> sorted(follow(statistics, params, params[:2]))
    []
    """
    params, anew = list(params), set(fresh)
    found = set()
    for path in statistics:
        module = path.split("/")[1:-1]
        while True:
            prefix = "/".join(["backbone", *module, ""])
            owners = [p for p in params if p.startswith(prefix)]
            if owners or not module:
                break
            module = module[:-1]
        if owners and anew.issuperset(owners):
            found.add(path)
    return found


def _taken(chosen: Collection[str], these: PyTree, those: PyTree) -> PyTree:
    """Return ``those`` with the leaves at some paths of ``these``."""
    return jax.tree_util.tree_map_with_path(lambda p, a, b: a if paths.path_of(p) in chosen else b, these, those)


def _matching(params: Iterable[str], patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (the paths, those that a pattern matches)."""
    params = list(params)
    return params, [p for p in params if any(re.fullmatch(pattern, p) for pattern in patterns)]


def renamed_path(path: str, rename: Sequence[tuple[str, str]]) -> str:
    """Return what a loaded path is called after renaming.

    >>> renamed_path("heads/t/kernel", [(r"heads/t/(.*)", r"heads/u/\\1")])
    'heads/u/kernel'
    """
    for pattern, replacement in rename:
        if match := re.fullmatch(pattern, path):
            path = match.expand(replacement)
    return path


def _renamed(params: PyTree, state: PyTree, rename: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return loaded statistics by the paths that they have where their modules' parameters are renamed."""
    # A model of ours keeps the trunk's parameters below ``backbone``; of another, both have the same paths.
    root = "backbone/" if "backbone" in params else ""
    found: dict[str, Any] = {}
    for path, leaf in paths.flatten(state).items():
        collection, _, inner = path.partition("/")
        renamed = f"{collection}/{renamed_path(root + inner, rename).removeprefix('backbone/')}"
        if renamed in found:
            raise ValueError(f"parameters do not fit: two loaded leaves become {renamed}")
        found[renamed] = leaf
    return found
