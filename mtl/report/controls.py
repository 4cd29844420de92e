"""What controls show: by themselves, and of the gains that are claimed beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mtl.regimes import REFERENCES
from mtl.report import phrases, references
from mtl.report.analysis import Analysis, Contrast, Scores
from mtl.report.claims import claims
from mtl.report.text import p_text

_KNOWN_CONTROLS = {
    "multitask_examples": "trained jointly on as many examples as the others",
    "random_probe": "which never trained its trunk",
    "scratch_own_scale": "from scratch on inputs scaled by its own labelled rows alone",
    "logistic_regression": "scikit-learn's on the same labels",
    "forest": "a random forest on the same labels",
}
_WITHOUT = {
    "multitask_examples": "more examples than the others see",
    "random_probe": "any source",
    "scratch_own_scale": "the rows of the pools",
    **dict.fromkeys(REFERENCES, "a network"),
}
# What a gain that holds against the control is shown to be, and what one that does not may be.
_MEANING = {
    "multitask_examples": ("rest on its further examples", "are not shown to need its further examples"),
    "random_probe": ("are the trained trunk's", "are not shown to be the source's"),
    "scratch_own_scale": ("are not those of scaling with few rows", "may be those of scaling with few rows"),
    **dict.fromkeys(REFERENCES, ("need a network", "may be had without a network")),
}


def counterparts(scores: Scores, control: str) -> tuple[str, ...]:
    """The regimes that a control is compared with.

    ``random_probe`` is `linear_probe` with a trunk that was never trained, and says nothing of regimes that
    train theirs on the target; ``multitask_examples`` is `multitask` with fewer updates; a doubled budget is compared
    with a doubled budget (see `mtl.report.budget`); a reference with every network; any other control with all
    contenders.

    Args:
      scores: of a sweep.
      control: one of its controls.

    Returns:
      Names, in the order of the table.
    """
    if control in scores.doubled:
        return ()
    if control in REFERENCES:
        networks = (r for r in scores.regimes if r not in (scores.baseline, *REFERENCES))
        return tuple(r for r in networks if r not in scores.doubled)
    only = {"random_probe": "linear_probe", "multitask_examples": "multitask"}.get(control, "")
    contenders = (r for r in scores.regimes if r != scores.baseline and r not in scores.controls)
    return tuple(r for r in contenders if r == only or not only)


def control_sentences(analysis: Analysis, name: str, contrasts: Sequence[Contrast]) -> list[str]:
    """What a control shows by itself, and which claimed gains hold against it.

    Args:
      analysis: cells.
      name: a control.
      contrasts: of regimes (first) with it (second), of the family of all controls.
    """
    scores, cells = analysis.scores, analysis.cells[name]
    described = f"{name}, {_KNOWN_CONTROLS[name]}," if name in _KNOWN_CONTROLS else f"the control {name}"
    if not any(c.replicates for c in cells.values()):
        return [f"{phrases.capital(described, scores.regimes)} was not measured."]
    sentences = []
    own = claims(analysis, [name], "gain") + claims(analysis, [name], "harm")
    judged = [n for n in scores.sizes if not math.isnan(cells[n].p)]
    gained = [n for n in scores.sizes if cells[n].claim == "gain"]
    if own:
        text = "; ".join(own).replace(f" {name} ", f" {described} ", 1)
        meaning = f": that much comes without {_WITHOUT[name]}" if gained and name in _WITHOUT else ""
        sentences.append(f"{phrases.capital(text, scores.regimes)}{meaning}.")
    elif judged:
        if all(cells[n].claim == "equivalent" for n in judged):
            at = phrases.with_labels(judged, scores.sizes)
            what = f"is equivalent to {scores.baseline} (within ±{phrases.margin(scores)}) {at}"
        else:
            what = f"is shown neither to gain over {scores.baseline} nor to do harm"
        sentences.append(f"{phrases.capital(described, scores.regimes)} {what}.")
    sentences += references.told(analysis, name)
    contenders = [c for c in contrasts if c.first not in scores.controls]
    claimed = [c for c in contenders if analysis.cells[c.first][c.size].claim == "gain"]
    held = [c for c in claimed if c.sign > 0]
    lost = [c for c in claimed if c.sign <= 0]
    because, instead = _MEANING.get(name, ("go beyond it", "may be no more than it shows"))
    if held:
        where = "; ".join(phrases.listed([(c.first, c.size) for c in held], scores.sizes))
        sentences.append(f"Gains over {scores.baseline} that hold against {name}, and so {because}: {where}.")
    if lost:
        both = [n for n in gained if any(c.size == n for c in lost)]
        too = f" (which gains too {phrases.with_labels(both, scores.sizes)})" if both else ""
        where = "; ".join(phrases.listed([(c.first, c.size) for c in lost], scores.sizes))
        most = max(lost, key=lambda c: c.gain)
        which = "" if len(lost) == 1 else f"most {most.first} {phrases.with_labels([most.size], scores.sizes)}: "
        over = f"{which}{phrases.amount(most.gain, most.low, most.high, scores)} over it, p = {p_text(most.p_holm)}"
        sentences.append(
            f"Gains over {scores.baseline} that are not shown to exceed {name}{too}, and so {instead}: {where} "
            f"({over.replace('= <', '< ')})."
        )
    return sentences
