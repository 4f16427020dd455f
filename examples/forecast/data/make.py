"""Make daily_counts.csv: sightings of a beetle that spreads through four regions, as noisy as people count."""

import csv
from datetime import date, timedelta
from pathlib import Path

import numpy as np

FIRST_DAY = date(2025, 4, 1)
DAYS = 75
REGIONS = {"coast": (5200, 0.13, 44), "hills": (1900, 0.10, 58), "island": (640, 0.19, 31), "valley": (3600, 0.085, 70)}
"""How many beetles there will be in all, how fast they spread, and the day by which half of them are seen."""

rng = np.random.default_rng(11)
day = np.arange(DAYS + 1)
with (Path(__file__).parent / "daily_counts.csv").open("w", newline="") as file:
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(["day", "region", "sightings"])
    for region, (most, rate, half_day) in REGIONS.items():
        expected = np.diff(most / (1 + np.exp(-rate * (day - half_day))))
        counts = rng.poisson(expected * rng.gamma(12, 1 / 12, DAYS))
        lines.writerows([FIRST_DAY + timedelta(int(at)), region, count] for at, count in enumerate(counts))
