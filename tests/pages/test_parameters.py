"""Parameters of chapters: one line under each parameters cell says what it expects and what the page ran with."""

import ast
import json
import re

import pytest
from conftest import ROOT

from interp_lib.pages import chapters, parameters
from interp_lib.pages.parameters import ParameterError

CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A page's own IPython, which keeps nothing."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.history_manager.enabled = False

    def run(*cells):
        for cell in cells:
            done = shell.run_cell(cell, store_history=True)
            if not done.success:
                raise done.error_in_exec or done.error_before_exec

    run("from interp_lib.pages import chapters")
    shell.run = run
    return shell


CHECK = 'chapters.check(globals(), "n", "eps", "recompute")'
DEFAULTS = "n = 100\neps = 0.1\nrecompute = False"


def test_a_page_with_its_own_parameters_says_nothing_and_asserts(shell, capsys):
    shell.run(DEFAULTS, CHECK)
    assert capsys.readouterr().out == ""
    with pytest.raises(AssertionError):
        shell.run("assert n > 100")


def test_a_page_says_what_it_ran_with_and_what_does_not_hold_then(shell, capsys):
    shell.run(DEFAULTS, '# Parameters\nn = 2e1\neps = "8/255"\nrecompute = "no"\n', CHECK)
    assert capsys.readouterr().out == f"This page was run with n = 20, eps = {8 / 255}, recompute = False.\n"
    shell.run("def f():\n    assert n > 50, 'few'\nf()\nprint('PASS: many')\nprint('after')")
    assert capsys.readouterr().out == "With these parameters this does not hold: n > 50\nafter\n"
    shell.run("assert n == 20 and recompute is False\nprint('PASS: twenty')", CHECK, "assert n == 20; n")
    assert "PASS: twenty\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "injected, words",
    [
        ("epps = 0.1", "no parameter epps; it has n, eps, recompute. Did you mean eps"),
        ("n = 'all'", "n must be a whole number"),
        ("n = 0", "n must be a whole number in 2 .."),
        ("eps = 8", "eps must be a number in .* 8/255 and not 8; got 8"),
        ("recompute = 'maybe'", "recompute must be true or false"),
    ],
)
def test_papermill_alone_is_refused_at_once(injected, words, shell):
    with pytest.raises(ParameterError, match=words):
        shell.run(DEFAULTS, f"# Parameters\n{injected}\n", CHECK)


@pytest.mark.parametrize("name, most", [("shown", 9), ("n_shown", 10)])
def test_what_counts_among_the_images_of_a_page_stays_among_them(name, most):
    parameters.check({"n": 10, name: most}, "n", name)
    with pytest.raises(ParameterError, match=f"{name} must be at most {most}, with n = 10"):
        parameters.check({"n": 10, name: most + 1}, "n", name)


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [("".join(c["source"]), c["metadata"].get("tags", [])) for c in cells if c["cell_type"] == "code"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_checks_all_its_parameters_under_their_cell(path):
    (first, tags), (second, _), *_ = code_cells(path)
    assert "parameters" in tags
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(first).body}
    (listed,) = re.findall(r"^chapters\.check\(\s*globals\(\),(.*?)\)$", second, re.MULTILINE | re.DOTALL)
    assert re.findall(r'"(\w+)"', listed) == list(values)
    given = dict(values)
    chapters.check(given, *values)
    assert given == values


def test_a_file_is_found_from_where_the_command_was_started(tmp_path, monkeypatch):
    (tmp_path / "cat.jpg").touch()
    monkeypatch.chdir(tmp_path)
    assert parameters.read("image", "cat.jpg") == str(tmp_path / "cat.jpg")
    assert parameters.read("image", "") == "" and parameters.read("features", "layer4") == "layer4"
    with pytest.raises(ParameterError, match=r"weights must be the path .* there is no 'dog\.pt'"):
        parameters.read("weights", "dog.pt")
    with pytest.raises(ParameterError, match="architecture must be a text; got 18"):
        parameters.read("architecture", 18)


def test_the_normalisations_are_the_librarys():
    from interp_lib.models import NORMALISATIONS

    assert set(parameters.NAMES["normalisation"]) == set(NORMALISATIONS)
