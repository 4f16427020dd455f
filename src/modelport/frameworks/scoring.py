"""What the numbers of a network are for which labels were stated: probabilities or scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from modelport.errors import SignatureError
from modelport.frameworks import tabular

Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Scoring:
    """What a network's numbers are called, and what has to be done to make them so."""

    name: Literal["probabilities", "scores"]
    """scores are each between 0 and 1 and do not sum up to one: several labels may be right."""
    function: Literal["", "softmax", "sigmoid"]


def of(seen: Numbers, count: int, *, sigmoid: bool) -> Scoring:
    """What numbers (rows, numbers) are that `count` labels are stated for; `sigmoid` says whether one computes them in the end.

    SignatureError where they are not as many as the labels; one number for two labels is the chance of the second.
    """
    width = seen.shape[1]
    if width == 1 and count == 2:
        return Scoring("probabilities", "" if sigmoid else "sigmoid")
    if width != count:
        raise SignatureError(
            f"{count} labels are stated, and the model gives {width} numbers", hint="--labels FILE has one a line, in the model's order."
        )
    if (seen >= 0).all() and (seen <= 1).all() and np.allclose(seen.sum(axis=1), 1, atol=1e-3):
        return Scoring("probabilities", "")
    return Scoring("scores", "") if sigmoid else Scoring("probabilities", "softmax")


def numbers(answer: Any) -> Numbers:
    """An output as (rows, numbers). SignatureError when it is none."""
    array = np.asarray(answer)
    if array.dtype.kind != "f" or array.ndim < 1:
        raise SignatureError("labels are stated, and the model names its answers itself", hint="Leave out --labels.")
    return array.reshape(len(array), -1).astype(np.float32)


def scored(answer: Any, scoring: Scoring, count: int) -> Numbers:
    """A number for each of `count` labels: (rows, count)."""
    scores = numbers(answer)
    if scoring.function == "softmax":
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    if scoring.function == "sigmoid":
        scores = np.asarray(1 / (1 + np.exp(-scores)), np.float32)
    return tabular.both_classes(scores[:, 0]) if scores.shape[1] < count else scores
