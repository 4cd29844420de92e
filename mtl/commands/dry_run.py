"""What ``mtl sweep --dry-run`` prints: what a sweep would run, ours or one written for another codebase."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mtl.config import ConfigError, augmentation, canonical
from mtl.sweep.expand import Changes, Defined
from mtl.sweep.launch import preview
from mtl.sweep.plan import Plan
from mtl.sweep.store import Workdir


def show(base: Any, entries: Mapping[str, list[Changes]], workdir: Workdir, each: bool) -> int:
    """Print the trials, programs and steps of sweeps and return an exit code; nothing is run.

    Args:
      base: the fields of the config.
      entries: the changes of each trial, by sweep.
      workdir: where results would go.
      each: whether to print every trial.
    """
    for name, given in entries.items():
        shown = preview(base, name, given, workdir)
        plan, changes = shown.plan, shown.changes
        print(f"sweep {name}: {len(changes):,} trials, {shown.to_run:,} to run")
        for sentence in shown.news:
            print(f"  {sentence}")
        if shown.tuning:
            print(f"  {shown.tuning} trials first, to tune the source's learning rate (hashes are known after that)")
        print(f"  {plan.programs()} programs to compile, {len(plan.nodes):,} distinct phases")
        print(f"  {plan.steps():,} steps, each distinct phase once ({plan.steps_unshared():,} without sharing)")
        for path, count in _begun(plan).items():
            print(f"  {count:,} trials begin from {path or 'random weights'}")
        for spec, phases in _changed(plan).items():
            print(f"  images changed in {phases:,} of the phases: {augmentation.described(spec)}")
        if each:
            for i, entry in enumerate(changes):
                print(f"  {shown.hashes[i] if shown.hashes else '-' * 16}  {canonical(entry)}")
    return 0


def _begun(plan: Plan) -> dict[str, int]:
    """Return how many trials begin from each file of weights; nothing if none could."""
    if not any(t.config["init"]["path"] for t in plan.trials.values()):
        return {}
    paths = [t.loads for t in plan.trials.values()]
    return {path: paths.count(path) for path in dict.fromkeys(paths)}


def _changed(plan: Plan) -> dict[augmentation.Spec, int]:
    """Return in how many distinct phases images are changed, by how."""
    # Class ids to mix are the phase's own; how is what is told.
    specs = [augmentation.parse(augmentation.stated(n.stage.program.augment)) for n in plan.nodes.values()]
    return {spec: specs.count(spec) for spec in dict.fromkeys(specs) if spec}


def expand_only(config: Any, spec: str, available: Mapping[str, Defined], wanted: Sequence[str]) -> int:
    """Expand a sweep file written for another codebase: what it would launch, one trial a line.

    Args:
      config: its config.
      spec: what the user called it.
      available: its sweeps.
      wanted: the names of those to expand.

    Raises:
      ConfigError: if it has none.
    """
    if not available:
        raise ConfigError(f"--config={spec} defines no sweep_NAME() and no get_hyper(hyper)")
    known = set(_paths(config))
    print(f"{spec} is not a config of mtl: its sweeps are expanded, and cannot be run here")
    for name in wanted:
        entries = available[name]()
        print(f"sweep {name}: {len(entries):,} trials")
        for entry in entries:
            print(f"  {json.dumps(entry, sort_keys=True, default=str)}")
        absent = sorted({key for entry in entries for key in entry} - known)
        if absent:
            print(f"  fields that its get_config() does not have: {', '.join(absent)}")
    return 0


def _paths(config: Any, prefix: str = "") -> list[str]:
    found = []
    for key, value in config.items():
        found.append(f"{prefix}{key}")
        if hasattr(value, "items"):
            found += _paths(value, f"{prefix}{key}.")
    return found
