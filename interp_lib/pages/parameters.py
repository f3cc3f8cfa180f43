"""Check the parameters of a chapter, names and values, before the chapter runs."""

import ast
import difflib
import math
from collections.abc import Iterable, MutableMapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..paper import METHODS
from ..values import is_number

LARGEST = 2**31 - 1


# Name -> (type, smallest value, largest value, description). A number may be given as text: "8/255", "1e2".
NUMBERS = {
    "index": (int, 0, 199, "which of the 200 images"),
    "shown": (int, 0, 199, "which of the images"),
    "n": (int, 2, LARGEST, "a number of images"),
    "images": (int, 2, 200, "a number of images"),
    "n_shown": (int, 1, 200, "a number of images"),
    "steps": (int, 1, 100_000, "a number of steps"),
    "queries": (int, 1, 100_000, "a number of queries"),
    "updates": (int, 1, 100_000, "a number of updates"),
    "size": (int, 8, 4096, "a side of an image, in pixels"),
    "seed": (int, 0, LARGEST, "a seed"),
    "eps": (float, 1e-6, 1.0, "a radius in the unit of the pixels, 8/255 and not 8"),
    "alpha": (float, 1e-6, 1.0, "a step size in the unit of the pixels, 1/255 and not 1"),
}

# None stands for the files in profiles/; the normalisations are those of `models.NORMALISATIONS`.
NAMES = {"profile": None, "method": METHODS, "normalisation": ("none", "ImageNet")}

FILES = ("weights", "image", "folder")  # '' for none

TEXTS = ("architecture", "features", "device")  # '' for the default; whoever uses one refuses what it cannot be

SWITCHES = ("recompute",)

WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

WITHIN = {"shown": -1, "n_shown": 0}  # an index into a page's n images, at most n - 1, and a count of them, at most n


class ParameterError(ValueError):
    """A parameter that the chapter does not have, or a value that the parameter cannot take."""


def read(name: str, value: object) -> Any:
    """Convert the given value of a parameter to the parameter's type, and check its range.

    Args:
        name: a parameter of a chapter.
        value: a value of that type, or its text: '8/255', '1e2', 'no'.

    Raises:
        ParameterError: the value is invalid; the message has the name, what was expected and what was given.
    """
    if name in SWITCHES:
        word = WORDS.get(str(value).strip().lower())
        if word is None:
            raise ParameterError(f"{name} must be true or false; got {value!r}.")
        return word
    if name in NUMBERS:
        return _number(name, value)
    if name in FILES or name in TEXTS:
        return _text(name, value)
    known = NAMES[name]
    if known is None:
        from .profiles import load

        if not isinstance(value, str):
            raise ParameterError(f"{name} must be the name of a file in profiles/; got {value!r}.")
        return load(value).name
    by_lower = {word.lower(): word for word in known}
    if not isinstance(value, str) or value.lower() not in by_lower:
        raise ParameterError(f"{name} must be one of {', '.join(known)}; got {value!r}.")
    return by_lower[value.lower()]


def _text(name: str, value: object) -> str:
    """Return a text unchanged, or the absolute path of a file: a chapter runs in another folder than its command."""
    if not isinstance(value, str):
        raise ParameterError(f"{name} must be a text; got {value!r}.")
    if name in TEXTS or not value:
        return value
    path = Path(value).expanduser()
    if not path.exists():
        raise ParameterError(f"{name} must be the path of a file or folder; there is no {value!r}.")
    return str(path.absolute())


def _number(name: str, value: object) -> int | float:
    kind, low, high, what = NUMBERS[name]
    number: Any
    try:
        if isinstance(value, str):
            # Fraction reads "8", "0.1" and "1e2" exactly, and never evaluates code.
            above, slash, below = value.partition("/")
            number = Fraction(above.strip()) / Fraction(below.strip() if slash else "1")
        elif not is_number(value) or not math.isfinite(value):
            raise ValueError
        else:
            number = value
        if kind is int and number != int(number):
            raise ValueError
        number = kind(number)
    except (ValueError, ArithmeticError):
        number = None
    if number is None or not low <= number <= high:
        sort = "a whole number" if kind is int else "a number"
        raise ParameterError(f"{name} must be {sort} in {low:g} .. {high:g}, {what}; got {value!r}.")
    return number


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str = "this chapter") -> None:
    """Refuse names that are not in the chapter's parameters cell.

    Raises:
        ParameterError: a name is unknown; the message lists the known names and suggests the nearest.
    """
    known = list(known)
    for name in sorted(set(given) - set(known)):
        near = difflib.get_close_matches(name, known, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise ParameterError(f"{where} has no parameter {name}; it has {', '.join(known)}.{meant}")


def injected(namespace: MutableMapping[str, Any]) -> list[str]:
    """List the names that papermill sets in the cell that it injects under the parameters cell; [] without one."""
    cells = [cell for cell in namespace.get("In", ()) if cell.startswith("# Parameters\n")]
    if not cells:
        return []
    return [
        target.id
        for node in ast.parse(cells[-1]).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]


def check(namespace: MutableMapping[str, Any], *names: str) -> None:
    """Check a chapter's parameters before they are used, convert their types, and print any injected values.

    Every parameters cell is followed by a call such as `chapters.check(globals(), "profile", "n")`. The call prints
    nothing when the page runs with the values of that cell. With injected values it prints them in one line, and turns
    the page's assertions into sentences, see `Sentences`.

    Args:
        namespace: the page's `globals()`; converted values replace the given ones, such as a number for '8/255'.
        names: all parameters in the page's parameters cell.

    Raises:
        ParameterError: a parameter that the page does not have, or an invalid value.
    """
    given = injected(namespace)
    refuse_unknown(given, names)
    values = {name: read(name, namespace[name]) for name in names}
    for name in WITHIN.keys() & values.keys() if "n" in values else ():
        if values[name] > (most := values["n"] + WITHIN[name]):
            raise ParameterError(f"{name} must be at most {most}, with n = {values['n']}; got {values[name]}.")
    namespace.update(values)
    if not given:
        return
    print("This page was run with " + ", ".join(f"{name} = {namespace[name]}" for name in given) + ".")
    shell = namespace["get_ipython"]() if "get_ipython" in namespace else None
    if shell and not any(isinstance(transformer, Sentences) for transformer in shell.ast_transformers):
        namespace[Sentences.NAME] = Verdict()
        shell.ast_transformers.append(Sentences())


class Verdict:
    """Whether the assertions of the current cell hold, when a page runs with other parameters than its own."""

    def __init__(self):
        self.holds = True

    def begin(self) -> None:
        """Begin a cell: no assertion has failed yet."""
        self.holds = True

    def fails(self, statement: str) -> None:
        """Print that a statement of the page is false with these parameters, and remember it."""
        self.holds = False
        print(f"With these parameters this does not hold: {statement}")


class Sentences(ast.NodeTransformer):
    """Replace a page's assertions by printed sentences; after a failed one, skip the PASS line of the cell.

    A page's assertions are about the values in its own parameters cell. With other values they may be false although
    the code is right, and the rest of the page is still worth reading.
    """

    NAME = "_verdict"

    def visit_Module(self, node: ast.Module) -> ast.Module:
        self.generic_visit(node)
        # IPython transforms each cell as one module, so that a call put first runs at the start of the cell.
        if node.body:
            node.body = [*ast.parse(f"{self.NAME}.begin()").body, *node.body]
        return ast.fix_missing_locations(node)

    def visit_Assert(self, node: ast.Assert) -> ast.If:
        statements = ast.parse(f"{self.NAME}.fails({ast.unparse(node.test)!r})").body
        return ast.If(test=ast.UnaryOp(op=ast.Not(), operand=node.test), body=statements, orelse=[])

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        if not ast.unparse(node).startswith(("print('PASS", 'print("PASS', "print(f'PASS", 'print(f"PASS')):
            return node
        return ast.If(test=ast.parse(f"{self.NAME}.holds", mode="eval").body, body=[node], orelse=[])
