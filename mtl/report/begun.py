"""What the regimes of a sweep begin from, in words, for the notes of its table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mtl.config import Trial
from mtl.report.phrases import join


def begun_notes(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each file of weights that regimes begin from, and what the others begin from.

    Args:
      results: of a sweep; none with an ``init.path`` gives no sentence.

    >>> def result(regime, begin):
    ...     config = {"regime": regime, "init": {"path": "a.safetensors"}, "phases": [{"begin": begin}]}
    ...     fingerprint = {"init": {"sha256": "0123456789abcdef"}}
    ...     cost = {"examples": 6400}
    ...     return {"config": config, "fingerprint": fingerprint, "init_cost": cost, "inputs": {"brought": True}}
    >>> begun_notes([result("finetune", "init"), result("scratch", "")])
    ['finetune begins from the weights at a.safetensors (sha256 0123456789ab), whose training on 6,400 examples is
     charged to it; scratch begins from random weights.']
    """
    loaded: dict[tuple[str, str], dict[str, None]] = {}
    charged: dict[tuple[str, str], float | None] = {}
    unscaled: dict[str, None] = {}
    random: dict[str, None] = {}
    for result in results:
        regime = str(result["config"].get("regime", ""))
        if path := Trial(dict(result["config"])).loads:
            key = (path, str(result["fingerprint"].get("init", {}).get("sha256", ""))[:12])
            loaded.setdefault(key, {})[regime] = None
            charged[key] = (result.get("init_cost") or {}).get("examples")
            if not result["inputs"]["brought"]:
                unscaled[path] = None
        elif result["config"].get("init", {}).get("path"):
            random[regime] = None
    found = []
    for (path, sha256), regimes in loaded.items():
        examples = charged[path, sha256]
        cost = f"on {examples:,.0f} examples is" if examples is not None else "is not known and not"
        found.append(
            f"{_begin(regimes)} from the weights at {path} (sha256 {sha256}), whose training {cost} "
            f"charged to {'it' if len(regimes) == 1 else 'them'}"
        )
    if random:
        found.append(f"{_begin(random)} from random weights")
    notes = ["; ".join(found) + "."] if found else []
    return notes + [
        f"{path} does not say what its weights' inputs were scaled with: they see inputs scaled as all others are here."
        for path in unscaled
    ]


def _begin(regimes: Iterable[str]) -> str:
    names = list(regimes)
    return f"{join(names)} {'begins' if len(names) == 1 else 'begin'}"
