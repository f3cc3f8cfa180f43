"""Read the values of the command line's options; without PyTorch, so that a mistake is answered at once."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path


def number(kind: Callable[[str], float], low: float, high: float = math.inf) -> Callable[[str], float]:
    """Make a reader for an option's value: a finite number, low <= number <= high."""

    def read(text: str) -> float:
        try:
            value = kind(text)
            if low <= value <= high and math.isfinite(value):
                return value
        except (ValueError, OverflowError, ZeroDivisionError):
            pass
        limits = f"in {low} .. {high}" if math.isfinite(high) else f">= {low}"
        raise argparse.ArgumentTypeError(f"must be a {'whole ' * (kind is int)}number {limits}; got {text!r}")

    return read


def several(kind: Callable[[str], float]) -> Callable[[str], list]:
    """Make a reader for numbers separated by commas."""
    return lambda text: [kind(part.strip()) for part in text.split(",")]


def folder(text: str) -> Path:
    """Read the name of a folder and expand ~, which the shell does not expand in --out=~/x."""
    if not text:
        raise argparse.ArgumentTypeError("must be the name of a folder; got ''")
    return Path(text).expanduser()
