"""Functions as code on a page."""

import pytest

from interp_lib import discrepancies, interpreters
from interp_lib.pages import show


def documented(value: int = 1) -> int:
    """Say what it is.

    Over several lines.
    """
    # a comment stays
    return value + 1


def test_a_function_is_shown_without_its_docstring():
    text = "def documented(value: int = 1) -> int:\n    # a comment stays\n    return value + 1"
    shown = show(documented)
    assert repr(shown) == text and shown._repr_markdown_() == f"```python\n{text}\n```"
    assert repr(show(documented, documented)) == f"{text}\n\n\n{text}"


@pytest.mark.parametrize("function", [interpreters.cam, discrepancies.normalised_slope])
def test_what_is_shown_computes_what_the_function_does(function):
    text = repr(show(function))
    namespace = dict(function.__globals__)
    exec(compile(text, "shown", "exec"), namespace)
    again = getattr(namespace[function.__name__], "__wrapped__", namespace[function.__name__])
    original = getattr(function, "__wrapped__", function)
    assert again.__code__.co_code == original.__code__.co_code and '"""' not in text


@pytest.mark.parametrize("wrong", [len, "text", 3])
def test_what_has_no_source_is_refused(wrong):
    with pytest.raises(TypeError, match="^show needs functions with Python source; got "):
        show(wrong)


def test_nothing_to_show_is_refused():
    with pytest.raises(TypeError, match="^show needs at least one function; got none.$"):
        show()
