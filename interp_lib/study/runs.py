"""Find the measured rows that a printed value, or a network of several seeds, rests on."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from ..paper import GAMMA, SQUARED, eps_of
from . import records


def _pgd_settings(row: dict) -> tuple[float, int] | None:
    """Return (eps, steps) of a printed robust accuracy: Tables 3, 4, A1, A2, A3."""
    if row["table"] == "3":
        return eps_of(row["level"]), 200
    if row["metric"].startswith("ATA@eps="):
        return eps_of(row["metric"].partition("=")[2]), int(row["level"])
    if row["metric"].startswith("ATA@steps="):
        return eps_of(row["level"]), int(row["metric"].partition("=")[2])
    return None


def wanted_run(row: dict) -> tuple | None:
    """Return the key of the run that a printed value rests on, in the form of `run_of`."""
    if row["table"] == "1":
        squared = (row["method"], row["level"]) in SQUARED and row["dataset"] != "R-ImageNet"
        return "isa", row["method"], row["level"], squared
    if row["table"] == "5":
        return "unforeseen", row["level"], "released"
    if row["metric"].startswith("tau"):
        return "aai", row["metric"].partition(":")[2] or "CAM", round(eps_of(row["level"]), 6)
    pgd = _pgd_settings(row)
    return None if pgd is None else ("pgd", round(pgd[0], 6), pgd[1])


def run_of(measurement: str, row: dict) -> tuple:
    """Return the key that tells a measured row from the other rows of its network."""
    # eps is rounded, so that a record and the print match in spite of float error.
    if measurement == "isa":
        return "isa", row["interpreter"], row["measure"], row["squared_score"]
    if measurement == "aai":
        return "aai", row["interpreter"], round(row["eps"], 6)
    if measurement == "unforeseen":
        return measurement, row["attack"], row["form"]
    if measurement == "strong":  # after APGD-CE and APGD-T, in the place of the tables' 200 steps
        if row["attack"] not in ("none", "APGD-T"):
            return measurement, row["attack"], row["eps"]
        return "pgd", 0.0 if row["attack"] == "none" else round(row["eps"], 6), 200
    return "pgd", round(row["eps"], 6), row["steps"]


def value_of(printed: dict, row: dict) -> float | None:
    """Return the measured number to compare with a printed one; None where no image was left."""
    if printed["table"] == "1":
        return row[printed["metric"].lower()]
    return row["tau"] if printed["metric"].startswith("tau") else row["correct"] / row["n"]


def averaged(rows: Sequence[dict]) -> dict:
    """Average a network's rows over random starts; add `outcomes`, the share of starts that leave each image right.

    `correct` becomes a mean. `noise` is the standard deviation of the accuracy of one start minus the mean over these
    k starts, s sqrt(1 + 1 / k).
    """
    row = dict(rows[0])
    if all("right" in one for one in rows):
        per_draw = [records.outcomes_of(one["right"], one["n"]) for one in rows]
        row["outcomes"] = tuple(sum(image) / len(rows) for image in zip(*per_draw, strict=True))
    if len(rows) > 1:
        row["correct"] = fmean(one["correct"] for one in rows)
        row["noise"] = stdev(one["correct"] / one["n"] for one in rows) * math.sqrt(1 + 1 / len(rows))
    return row


def rows_over_seeds(
    found: Iterable[records.Record], measurement: str, networks: str = "ours"
) -> dict[tuple[str, str, float], list[dict]]:
    """Group the rows of the Small networks trained here by all that tells them apart but the seed.

    Args:
        found: records of any measurements.
        measurement: 'pgd' for the paper's 200 images, 'many' for 2,000, 'starts' for five random starts.
        networks: 'ours', or 'bfloat16' for those whose convolutions were computed in bfloat16.

    Returns:
        (dataset, method, eps rounded to six digits) -> rows, one per seed, under 200 steps and with the paper's gamma.
    """
    groups: dict[tuple[str, str, float], list[dict]] = {}
    for record in found:
        s = record.settings
        if (s["measurement"], s.get("model"), s.get("networks")) != (measurement, "small", networks):
            continue
        for row in record.rows:
            if (row["gamma"], row["steps"], row.get("starts", 5)) == (GAMMA, 200, 5):
                groups.setdefault((s["dataset"], row["method"], round(row["eps"], 6)), []).append(row)
    return groups
