"""Write, read and check result records: what was measured, with every setting, and where the numbers come from.

A record is one JSON file:

    {"schema": 1, "name": ..., "settings": {...}, "provenance": {...}, "rows": [{...}, ...]}

`settings` is everything that decides the numbers; the record's name ends in eight digits of their hash, so the same
settings always give the same file and other settings never overwrite it. `rows` are tidy: one dictionary per number.
Each row is one line of the file, so that `diff` shows how two records differ.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..reading import FileError, printable, read_json
from ..storage import write_atomically

SCHEMA = 1

RESULTS = Path("results")


LARGEST_RECORD = 2**24  # bytes; the longest committed record has 270,000


# The smallest count, or the range, that a row may have under a name. Rounding can lift a tau slightly above 1.
_COUNTS = {
    "n": 0,
    "n_all": 0,
    "correct": 0,
    "measured": 0,
    "steps": 0,
    "starts": 1,
    "seed": 0,
    "run": 1,
    "epochs": 0,
    "draw": 0,
    "against": 0,
}

_RANGES = {
    "eps": (0, 1),
    "radius": (0, 1),
    "accuracy": (0, 1),
    "auc": (0, 1),
    "at_cap": (0, 1),
    "gamma": (0, math.inf),
    "se": (0, math.inf),
    "tau": (-1 - 1e-9, 1 + 1e-9),
    "tau_all": (-1 - 1e-9, 1 + 1e-9),
    "nds": (-math.inf, math.inf),
    "nsl": (-math.inf, math.inf),
}

_MEANS = ("tau", "tau_all", "se", "nds", "nsl", "auc")  # may be None, where no image was left

_WORDS = frozenset(
    ("method", "schedule", "measure", "form", "activation", "attack", "reference", "rule", "check", "code", "kind")
    + ("input", "grid", "other", "layer")
)


# The names that tell a row from the other rows of its record; all other names are measured values.
_LABELS = (
    *sorted(_WORDS),
    "seed",
    "gamma",
    "radius",
    "run",
    "epochs",
    "eps",
    "steps",
    "starts",
    "draw",
    "interpreter",
    "squared_score",
    "climbs",
    "library",
    "map",
    "p",
)


# The labels that tell the rows of one network from the rows of the record's other networks.
NETWORK_LABELS = ("method", "schedule", "seed", "gamma", "radius", "run", "epochs")


# By measurement, the names that each row must have; and below, the names that the settings must have.
_ACCURACY = ("method", "eps", "steps", "correct", "n")

_NEEDED = {
    **dict.fromkeys(("pgd", "many", "fgsm", "seen", "clean"), _ACCURACY),
    **dict.fromkeys(("starts", "fine"), (*_ACCURACY, "starts")),
    "rounding": (*_ACCURACY, "draw"),
    "detection": ("method", "attack", "reference", "interpreter", "rule", "p", "auc", "n"),
    "peer": ("method", "attack", "code", "correct", "n"),
    **dict.fromkeys(("strong", "transfer"), ("method", "attack", "eps", "correct", "n")),
    "restarts": ("method", "attack", "starts", "eps", "correct", "n"),
    "masking": ("method", "check", "eps", "against", "n"),
    "certificates": ("method", "kind", "form", "radii", "correct", "n"),
    "unforeseen": ("method", "attack", "form", "draw", "correct", "n"),
    "aai": ("method", "interpreter", "eps", "tau", "n"),
    "aai-printed": ("method", "form", "eps", "tau", "n"),
    "aai-2018": ("method", "interpreter", "eps", "tau", "n"),
    "agreement": ("method", "input", "grid", "interpreter", "other", "tau", "n"),
    "sanity": ("method", "layer", "interpreter", "form", "tau", "n"),
    "faithfulness": ("method", "input", "rule", "interpreter", "deletion", "insertion", "n"),
    **dict.fromkeys(
        ("isa", "isa-again", "isa-beyond"), ("method", "interpreter", "measure", "squared_score", "nds", "nsl", "n")
    ),
    "softplus": ("method", "activation", "correct", "n"),
}

_SETTINGS = ("dataset", "model", "networks", "title")


class RecordError(FileError):
    """A file is not a complete record of this schema."""


@dataclass
class Record:
    """A measurement: `family` begins the file's name, `settings` decide the numbers, `rows` are the numbers."""

    family: str
    settings: dict
    rows: list[dict] = field(default_factory=list)
    provenance: dict = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The family and the first eight digits of the sha256 of the settings."""
        return f"{self.family}-{hashlib.sha256(_dump(self.settings).encode()).hexdigest()[:8]}"


def _dump(value) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def fault(record: Record) -> str:
    """Describe the first error in a record: a count beyond its n, a value out of range, a row twice ...; '' if none."""
    if not all(isinstance(part, dict) for part in (record.settings, record.provenance)):
        return "its settings or its provenance are no dictionary"
    if not isinstance(record.rows, list) or not all(isinstance(row, dict) for row in record.rows):
        return "its rows are not dictionaries"
    measurement = record.settings.get("measurement")
    if not isinstance(measurement, str):
        return "its settings lack 'measurement'"
    for name in _SETTINGS if measurement in _NEEDED else ():
        if not isinstance(record.settings.get(name), str):
            return f"its settings lack {name!r}"
    if (wrong := _out_of_range("seconds", record.provenance.get("seconds", 0), 0, math.inf)) and record.provenance:
        return wrong
    seen = set()
    for number, row in enumerate(record.rows, 1):
        # A row without a method has no label that sets it apart: compare it as a whole.
        label = {name: row[name] for name in _LABELS if name in row} if "method" in row else row
        wrong = _fault(row, _NEEDED.get(measurement, ()))
        # repr makes lists hashable, and keeps True from being equal to 1.
        key = tuple((name, value if type(value) in (int, float, str) else repr(value)) for name, value in label.items())
        if wrong or key in seen:
            which = ", ".join(f"{name} {value}" for name, value in label.items() if name in _LABELS)
            return f"row {number} ({printable(which, 200)}): {wrong or 'it is there twice'}"
        seen.add(key)
    return ""


def _fault(row: dict, needed: Iterable[str]) -> str:
    """Describe the first error in one row; '' if there is none."""
    for name in needed:
        if name not in row:
            return f"it lacks {name!r}"
    for name in _WORDS.intersection(row):
        if not isinstance(row[name], str):
            return f"{name} must be a word; got {printable(row[name], 30)}"
    for name in _COUNTS.keys() & row.keys():
        # Not isinstance: a bool is an int.
        if type(row[name]) is not int or not _COUNTS[name] <= row[name] < 10**9:
            return f"{name} must be a whole number from {_COUNTS[name]}; got {printable(row[name], 30)}"
    for name in _RANGES.keys() & row.keys():
        value = row[name]
        if name in _MEANS and (value is None or not needed and isinstance(value, list)):
            continue  # no image was left; or tau in a figure's record: a list, one for every map
        if wrong := _out_of_range(name, value, *_RANGES[name]):
            return wrong
    if "correct" in row and "n" not in row:
        return "it lacks 'n'"
    if "n" in row:
        n = row["n"]
        if "correct" in row and not 0 < n >= row["correct"]:
            return f"correct {row['correct']} of n {n} images"
        if "accuracy" in row and "correct" in row and abs(row["accuracy"] - row["correct"] / n) > 1e-9:
            return f"accuracy {row['accuracy']} where {row['correct']} of {n} are correct"
        if isinstance(row.get("right"), str) and "correct" in row:
            digits = row["right"]
            if len(digits) != -(-n // 4) or not set(digits) <= set("0123456789abcdef"):
                return f"right must be {-(-n // 4)} hexadecimal digits, four images each"
            if int(digits, 16).bit_count() != row["correct"]:
                return f"right marks {int(digits, 16).bit_count()} images where {row['correct']} are correct"
        for name in ("tau", "nds", "nsl"):
            if name in row and (row[name] is None) != (n == 0):
                return f"{name} is {row[name]} over n {n} images"
    return ""


def _out_of_range(name: str, value, low: float, high: float) -> str:
    """Say that a value is not a finite number in low .. high; '' if it is one."""
    if type(value) in (int, float) and low <= value <= high and abs(value) < 1e300:  # NaN is in no range
        return ""
    bounds = f"in {low:.3g} .. {high:.3g}" if math.isfinite(high) else f"from {low:g}" if math.isfinite(low) else ""
    return f"{name} must be a finite number{bounds and ' '}{bounds}; got {printable(value, 30)}"


def write(record: Record, folder: str | os.PathLike = RESULTS) -> Path:
    """Write a record atomically, one row per line.

    Returns:
        The record's path, folder / name.json.

    Raises:
        OSError: see `storage.write_atomically`.
        ValueError: a number in the record is NaN or infinite.
    """
    path = Path(folder) / f"{record.name}.json"
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False, allow_nan=False) for row in record.rows)
    head = {
        "schema": SCHEMA,
        "name": record.name,
        "settings": record.settings,
        "provenance": record.provenance,
    }
    # Cut the closing brace of the head to append the rows: `indent` would spread each row over many lines.
    text = json.dumps(head, indent=1, ensure_ascii=False, allow_nan=False)[:-2] + f',\n "rows": [\n{rows}\n ]\n}}\n'
    write_atomically(path, text.encode())
    return path


def read(path: str | os.PathLike) -> Record:
    """Read a record from its file and check it.

    Raises:
        FileNotFoundError: no such file.
        RecordError: the file is half-written, of another schema, renamed, edited so that name and settings disagree,
            or has impossible numbers, see `fault`.
    """
    path = Path(path)
    try:
        content = read_json(path, LARGEST_RECORD)
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise RecordError(f"it is not of schema {SCHEMA}")
        # The stem ends in a hyphen and eight digits of the hash: what comes before is the family.
        record = Record(path.stem[:-9], content["settings"], content["rows"], content["provenance"])
        if not (content["name"] == record.name == path.stem):
            raise RecordError(f"its name, its settings ({record.name}) and its inner name ({content['name']}) disagree")
        if wrong := fault(record):
            raise RecordError(wrong)
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise RecordError(f"{path} is not a complete result record: {reason}. Delete it and measure again.") from None
    return record


def read_all(folder: str | os.PathLike = RESULTS) -> list[Record]:
    """Read every record of a folder, in order of name.

    Raises:
        RecordError: a file that is not a complete record; the first one stops the reading.
    """
    return [read(path) for path in sorted(Path(folder).glob("*.json"))]


def having(records: Iterable[Record], **settings: str) -> list[Record]:
    """Choose the records with these settings: measurement='pgd', networks='ours', dataset='mnist', model='small' ..."""
    return [record for record in records if settings.items() <= record.settings.items()]


def by_dataset(records: Iterable[Record], measurement: str, networks: str = "released") -> dict[str, Record]:
    """Choose the records of one measurement on networks of one source: dataset -> its record, the last of several."""
    return {r.settings["dataset"]: r for r in having(records, measurement=measurement, networks=networks)}


def outcome_digits(right: Iterable[bool]) -> str:
    """Encode yes or no for each image as hexadecimal digits: four images per digit, the first in the highest bit."""
    bits = "".join("01"[bool(yes)] for yes in right)
    bits += "0" * (-len(bits) % 4)
    return f"{int(bits, 2):0{len(bits) // 4}x}" if bits else ""


def outcomes_of(digits: str, n: int) -> list[bool]:
    """Decode the digits of `outcome_digits` for n images."""
    return [bit == "1" for bit in "".join(f"{int(digit, 16):04b}" for digit in digits)[:n]]
