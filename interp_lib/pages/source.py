"""Show the functions that are a chapter's equations, as code on the page."""

import ast
import inspect
import textwrap
from collections.abc import Callable


class Source:
    """Source text that displays as highlighted code on a page and as plain text elsewhere."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}\n```"


def show(*functions: Callable) -> Source:
    """Show functions under the equations that they are: signature and body, without docstrings.

    Args:
        functions: functions written in Python; one behind a decorator is shown with it.

    Raises:
        TypeError: no function, or something that has no Python source, such as a built-in function.
    """
    if not functions:
        raise TypeError("show needs at least one function; got none.")
    return Source("\n\n\n".join(map(_without_docstring, functions)))


def _without_docstring(function: Callable) -> str:
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (TypeError, OSError):
        raise TypeError(f"show needs functions with Python source; got {function!r:.60}.") from None
    (definition,) = ast.parse(text).body
    lines = text.rstrip().splitlines()
    assert isinstance(definition, ast.FunctionDef | ast.ClassDef)
    if ast.get_docstring(definition) is not None:
        docstring = definition.body[0]
        assert docstring.end_lineno is not None
        lines[docstring.lineno - 1 : docstring.end_lineno] = []
    return "\n".join(lines)
