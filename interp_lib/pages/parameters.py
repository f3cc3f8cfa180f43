"""Parameters of chapters: what each of their names may be, checked before anything runs."""

import ast
import difflib
import math
from collections.abc import Iterable, MutableMapping
from fractions import Fraction
from numbers import Real

from ..paper import METHODS

LARGEST = 2**31 - 1


# Name -> kind, smallest and largest value, what it is. A number may be written as text: "8/255", "1e2".
NUMBERS = {
    "index": (int, 0, 199, "which of the 200 images"),
    "shown": (int, 0, 199, "which of the images"),
    "n": (int, 2, LARGEST, "a number of images"),
    "images": (int, 2, 200, "a number of images"),
    "n_shown": (int, 1, 200, "a number of images"),
    "steps": (int, 1, 100_000, "a number of steps"),
    "updates": (int, 1, 100_000, "a number of updates"),
    "seed": (int, 0, LARGEST, "a seed"),
    "eps": (float, 1e-6, 1.0, "a radius in the unit of the pixels, 8/255 and not 8"),
    "alpha": (float, 1e-6, 1.0, "a step size in the unit of the pixels, 1/255 and not 1"),
}

NAMES = {"profile": None, "method": METHODS}  # None: the files in profiles/

SWITCHES = ("recompute",)

WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

WITHIN = {"shown": -1, "n_shown": 0}  # these count among a page's n images: at most n - 1, at most n


class ParameterError(ValueError):
    """A parameter that a chapter does not have, or a value that it cannot run with."""


def read(name: str, value: object) -> object:
    """Turn what somebody gave for a parameter into its value.

    Args:
        name: a parameter of a chapter.
        value: of its type, or text that says it: '8/255', '1e2', 'no'.

    Raises:
        ParameterError: with the name, what was expected and what came.
    """
    if name in SWITCHES:
        word = WORDS.get(str(value).strip().lower())
        if word is None:
            raise ParameterError(f"{name} must be true or false; got {value!r}.")
        return word
    if name in NUMBERS:
        return _number(name, value)
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


def _number(name: str, value: object) -> int | float:
    kind, low, high, what = NUMBERS[name]
    try:
        if isinstance(value, str):
            above, slash, below = value.partition("/")
            number = Fraction(above.strip()) / Fraction(below.strip() if slash else "1")
        elif isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
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
    """Refuse names that a chapter's parameters cell does not have.

    Raises:
        ParameterError: with the names that it has, and the nearest of them.
    """
    known = list(known)
    for name in sorted(set(given) - set(known)):
        near = difflib.get_close_matches(name, known, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise ParameterError(f"{where} has no parameter {name}; it has {', '.join(known)}.{meant}")


def injected(namespace: MutableMapping[str, object]) -> list[str]:
    """List the names that papermill's cell sets, which it puts under the parameters cell; none without such a cell."""
    cells = [cell for cell in namespace.get("In", ()) if cell.startswith("# Parameters\n")]
    if not cells:
        return []
    return [node.targets[0].id for node in ast.parse(cells[-1]).body if isinstance(node, ast.Assign)]


def check(namespace: MutableMapping[str, object], *names: str) -> None:
    """Check a chapter's parameters before it uses them, give them their types, and say which it runs with.

    `chapters.check(globals(), "profile", "n")` stands under every parameters cell. It prints nothing when the page
    runs with the values of that cell, else one line that the page shows; then assertions of the page become sentences,
    see `Sentences`.

    Args:
        namespace: the page's `globals()`; values in it are replaced, '8/255' by its number.
        names: the parameters of the page, all that are in its parameters cell.

    Raises:
        ParameterError: a parameter that the page does not have, or a value that is none for its name.
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
    """What a page's assertions come to when it runs with other parameters than its own."""

    def __init__(self):
        self.holds = True

    def begin(self) -> None:
        """Begin a cell, of which nothing has failed yet."""
        self.holds = True

    def fails(self, statement: str) -> None:
        """Say that a statement of the page is not true of these parameters."""
        self.holds = False
        print(f"With these parameters this does not hold: {statement}")


class Sentences(ast.NodeTransformer):
    """Turn the assertions of a page into sentences, and print no PASS of its cell after one of them.

    What a page asserts is about the parameters in its own cell; with others it may be false without anything being
    wrong, and the rest of the page is worth reading.
    """

    NAME = "_verdict"

    def visit_Module(self, node: ast.Module) -> ast.Module:
        self.generic_visit(node)
        if node.body:
            node.body = [*ast.parse(f"{self.NAME}.begin()").body, *node.body]
        return ast.fix_missing_locations(node)

    def visit_Assert(self, node: ast.Assert) -> ast.If:
        said = ast.parse(f"{self.NAME}.fails({ast.unparse(node.test)!r})").body
        return ast.If(test=ast.UnaryOp(op=ast.Not(), operand=node.test), body=said, orelse=[])

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        if not ast.unparse(node).startswith(("print('PASS", 'print("PASS', "print(f'PASS", 'print(f"PASS')):
            return node
        return ast.If(test=ast.parse(f"{self.NAME}.holds", mode="eval").body, body=[node], orelse=[])
