"""Fit a logistic growth curve to the daily counts of each region, and keep draws from the posterior in parameters.json.

The total grows as most / (1 + exp(-rate (t - half_day))); what is counted on a day is negative binomial around what it grows by. The
posterior is sampled by random-walk Metropolis: first to learn how the parameters vary together, then in steps of that shape.
"""

import json
import math

import numpy as np
import pandas as pd

DRAWS = 400
STEPS = 20_000
rng = np.random.default_rng(0)


def log_posterior(theta: np.ndarray, counts: np.ndarray) -> float:
    """Of (log most, log rate, half_day, log spread), up to a constant."""
    log_most, log_rate, half_day, log_spread = theta
    spread = math.exp(log_spread)
    day = np.arange(len(counts) + 1)
    total = math.exp(log_most) / (1 + np.exp(-math.exp(log_rate) * (day - half_day)))
    expected = np.diff(total) + 1e-9
    likelihood = np.sum(counts * np.log(expected) - (counts + spread) * np.log(expected + spread))
    likelihood += np.sum(LOG_GAMMA[counts] + log_rising(counts, spread)) + len(counts) * spread * log_spread
    return float(likelihood - 0.5 * np.sum(((theta - PRIOR_MEAN) / PRIOR_SPREAD) ** 2))


PRIOR_MEAN = np.array([7.5, -2.3, 50, 2])
PRIOR_SPREAD = np.array([1.5, 0.7, 30, 1])
LOG_GAMMA = -np.array([math.lgamma(count + 1) for count in range(5000)])


def log_rising(counts: np.ndarray, spread: float) -> np.ndarray:
    """log Γ(count + spread) - log Γ(spread), for each count."""
    steps = np.log(spread + np.arange(counts.max() + 1))
    return np.concatenate([[0.0], np.cumsum(steps)])[counts]


def sample(counts: np.ndarray, start: np.ndarray, shape: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
    """A chain of Metropolis steps whose proposals have the covariance `shape`, and the share that was accepted."""
    at, height, accepted = start, log_posterior(start, counts), 0
    chain = np.empty((steps, len(start)))
    leaps = rng.standard_normal((steps, len(start))) @ np.linalg.cholesky(shape).T
    chances = np.log(rng.random(steps))
    for step in range(steps):
        there = at + leaps[step]
        there_height = log_posterior(there, counts)
        if chances[step] < there_height - height:
            at, height, accepted = there, there_height, accepted + 1
        chain[step] = at
    return chain, accepted / steps


data = pd.read_csv("data/daily_counts.csv", parse_dates=["day"])
regions = {}
for region, rows in data.groupby("region"):
    counts = rows.sort_values("day")["sightings"].to_numpy()
    start = np.array([math.log(2 * counts.sum()), -2.3, len(counts) / 1.5, 2.0])
    first, _ = sample(counts, start, np.diag([0.05, 0.05, 1.0, 0.2]) ** 2, STEPS // 2)
    shape = 2.4**2 / 4 * np.cov(first[STEPS // 4 :].T)
    chain, accepted = sample(counts, first[-1], shape, STEPS)
    most, rate, half_day, _ = chain[:: STEPS // DRAWS].T
    kept = {"most": np.exp(most).round(2), "rate": np.exp(rate).round(6), "half_day": half_day.round(3)}
    regions[region] = {name: draws.tolist() for name, draws in kept.items()}
    low, middle, high = np.percentile(np.exp(most), [5, 50, 95])
    print(f"{region:7} {middle:6,.0f} in all ({low:,.0f} to {high:,.0f}), {accepted:.0%} of the steps accepted")

with open("parameters.json", "w") as file:  # noqa: PTH123 as people write it
    json.dump({"first_day": data["day"].min().date().isoformat(), "regions": regions}, file)
