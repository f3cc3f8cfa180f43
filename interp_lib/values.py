"""Checks of single values: numbers, whole numbers, choices. Without PyTorch, so that a command fails fast."""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, TypeGuard


# By attributes, since this module does not import PyTorch.
def _is_tensor(value: object) -> TypeGuard[Any]:
    return hasattr(value, "shape") and hasattr(value, "is_complex")


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a real number, of Python or of numpy."""
    # bool is a subclass of int, so True would pass as 1.
    return isinstance(value, Real) and not isinstance(value, bool)


def _plain(value: object) -> object:
    """Return the number in a 0-dimensional tensor; return any other value unchanged."""
    if _is_tensor(value) and value.dim() == 0 and not value.is_complex() and "bool" not in str(value.dtype):
        return value.item()
    return value


def check_number(
    value: object, name: str, low: float = -math.inf, high: float = math.inf, *, above: bool = False
) -> None:
    """Refuse anything but a finite number in [low, high], or in (low, high] if `above`.

    Raises:
        TypeError: not a number.
        ValueError: not finite or out of range; names the argument.
    """
    value = _plain(value)
    if not is_number(value):
        raise TypeError(f"{name} must be a number; got {came(value)}.")
    if not (-math.inf < value < math.inf and low <= value <= high and not (above and value == low)):
        raise ValueError(f"{name} must be a finite number{_limits(low, high, above)}; got {value}.")


def check_radius(value: object, name: str = "eps", *, above: bool = False) -> None:
    """Refuse anything but a perturbation size in [0, 1], in the unit of the pixels; above 0 if `above`.

    Raises:
        TypeError, ValueError: see `check_number`.
    """
    try:
        check_number(value, name, 0, 1, above=above)
    except ValueError as error:
        raise ValueError(f"{error} Write 8/255, not 8.") from None


def check_whole(value: object, name: str, low: float = 0, high: float = math.inf) -> None:
    """Refuse anything but a whole number in low .. high; 3.0 counts as whole.

    Raises:
        TypeError: not a number.
        ValueError: not whole or out of range; names the argument.
    """
    if not is_number(value):
        raise TypeError(f"{name} must be a whole number; got {came(value)}.")
    if not (-math.inf < value < math.inf and int(value) == value and low <= value <= high):
        raise ValueError(f"{name} must be a whole number{_limits(low, high)}; got {value}.")


def check_choice(value: object, name: str, known: Sequence[object]) -> None:
    """Refuse anything but one of the known values.

    Raises:
        ValueError: another value; lists the known ones.
    """
    # Types are compared as well, since 1 == True == 1.0.
    if not any(type(value) is type(other) and value == other for other in known):
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}; got {value!r:.80}.")


def check_each(values: object, name: str, check: Callable[..., None], *limits: object, **more: object) -> None:
    """Refuse anything but a non-empty sequence whose values all pass `check`.

    Raises:
        TypeError, ValueError: not a sequence, an empty sequence, or an error of `check`.
    """
    if isinstance(values, str) or not (isinstance(values, Sequence) or (_is_tensor(values) and values.dim())):
        raise TypeError(f"{name} must be a sequence, such as a list; got {came(values)}.")
    if len(values) == 0:
        raise ValueError(f"{name} must hold at least one value; got none.")
    for value in values:
        check(value, name, *limits, **more)


def came(value: object) -> str:
    """Describe a rejected value in a few words, for an error message."""
    if _is_tensor(value):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    return f"{repr(value):.40} of type {type(value).__name__}"


def _limits(low: float, high: float, above: bool = False) -> str:
    if math.isfinite(high):
        return f" in {'(' if above else '['}{low:g}, {high:g}]"
    return f" {'>' if above else '>='} {low:g}" if math.isfinite(low) else ""
