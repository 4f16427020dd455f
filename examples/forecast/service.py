"""Answers from the parameters that train.py has written: no model object, and none of the tools that made it."""

import json
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

Region = Literal["coast", "hills", "island", "valley"]


@dataclass
class Day:
    """What is expected of one day.

    Attributes:
        day: The day.
        expected: Sightings that are expected.
        lower: Nineteen in twenty curves are above this.
        upper: And as many below this.
    """

    day: date
    expected: float
    lower: float
    upper: float


@dataclass
class Peak:
    """The day with the most sightings.

    Attributes:
        day: Which day it most likely is.
        sightings: How many are expected then.
        total: How many are expected in all.
    """

    day: date
    sightings: float
    total: float


def load():
    """The draws from the posterior, as arrays."""
    with open("parameters.json") as file:  # noqa: PTH123 as people write it
        fitted = json.load(file)
    draws = {region: {name: np.array(values)[:, None] for name, values in values.items()} for region, values in fitted["regions"].items()}
    return date.fromisoformat(fitted["first_day"]), draws


def predict(fitted, region: Region, days: Annotated[int, Meta(ge=2, le=365)] = 120) -> list[Day]:
    """How many sightings to expect on each day, and how sure that is: the curve and its 90 % interval.

    Args:
        region: Where.
        days: For how many days, from the first that was counted.
    """
    first_day, draws = fitted
    curves = daily(draws[region], days)
    lower, expected, upper = np.percentile(curves, [5, 50, 95], axis=0).round(1)
    return [Day(first_day + timedelta(at), expected[at], lower[at], upper[at]) for at in range(days)]


def peak(fitted, region: Region) -> Peak:
    """When the most sightings are to be expected.

    Args:
        region: Where.
    """
    first_day, draws = fitted
    expected = np.median(daily(draws[region], 365), axis=0)
    at = int(expected.argmax())
    return Peak(first_day + timedelta(at), expected[at].round(1), np.median(draws[region]["most"]).round())


def daily(draws, days):
    """The growth of each day, for each draw: an array of (draws, days)."""
    total = draws["most"] / (1 + np.exp(-draws["rate"] * (np.arange(days + 1) - draws["half_day"])))
    return np.diff(total)
