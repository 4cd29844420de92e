"""What a trial's own validation says of its training: whether it ended too early or went on too long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from mtl import regimes
from mtl.config.trial import asked_of
from mtl.report.caveats import FEW_VALIDATED, FEW_VALIDATED_OF_A_CLASS

#: A kept state is much worse than the best one if its score is by so much: 1 is the score of predicting the prior.
MUCH_WORSE = 0.1


def unconverged(result: Mapping[str, Any]) -> bool:
    """Return whether the last phase was at its best when it ended, so that more updates might have done better.

    Nothing can be said, and it is not, where there was but one evaluation, as of a closed form. With folds it is the
    last phase of half of them or more.

    >>> def result(*scores, select="best"):
    ...     phases = {"val_score": {"even": list(scores)}}, {"select": select}
    ...     return {"phases": [phases[0]], "config": {"phases": [phases[1]], "data": {"target": "even"}}}
    >>> unconverged(result(0.9, 0.8, 0.7)), unconverged(result(0.9, 0.7, 0.8)), unconverged(result(0.9))
    (True, False, False)
    >>> overfitted(result(0.5, 0.7, select="last")), overfitted(result(0.5, 0.7))
    (True, False)
    """
    if result["config"]["data"].get("folds"):  # All labels train, for the median of the steps that were best.
        best, last = result["config"]["phases"][-1]["select"] == "best", result["phases"][-1]
        return best and len(last["evaluated_at"]) > 1 and bool(last["steps"] == last["most_steps"])
    scores = _scores(result)
    return len(scores) > 1 and bool(scores[-1] < scores[:-1].min())


def overfitted(result: Mapping[str, Any]) -> bool:
    """Return whether the last phase kept its last state although an earlier one was much better.

    That is a matter of ``select = "last"``; with ``best`` the better one was kept.
    """
    scores = _scores(result)
    last = result["config"]["phases"][-1]["select"] == "last"
    return last and len(scores) > 1 and bool(scores[-1] > scores.min() + MUCH_WORSE)


def few_validated(result: Mapping[str, Any], task: str) -> bool:
    """Return whether a trial had too few validation labels of a task to choose by its metric."""
    labels, *rarest = result["validated"].get(task) or [FEW_VALIDATED]
    return labels < FEW_VALIDATED or any(count < FEW_VALIDATED_OF_A_CLASS for count in rarest)


def _scores(result: Mapping[str, Any]) -> Float[np.ndarray, " evaluations"]:
    """Return the score by which states of the last phase are chosen, at each evaluation; lower is better."""
    by_task = result["phases"][-1]["val_score"]
    judges = regimes.judges(tuple(by_task), asked_of(result["config"]))
    curves = [np.array(by_task[task], float) for task in judges]
    judged = [curve for curve in curves if not np.isnan(curve).all()]  # A task without validation labels has no score.
    return np.mean(judged, axis=0) if judged else np.zeros(0)
