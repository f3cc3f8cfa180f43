"""The four worked examples of CONTRIBUTING: what it names is there, and is as short as it says."""

import inspect
import io
import re
import tokenize

import pytest
from conftest import ROOT

from interp_lib import datasets
from interp_lib.attacks import momentum
from interp_lib.interpreters.sensitivity import input_times_gradient
from interp_lib.training.methods import logit_pairing

SECTION = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Four worked")[2].partition("\n## ")[0]
ROWS = [line for line in SECTION.splitlines() if line.startswith("| a")]


def lines_of_code(thing) -> int:
    """The lines of a function or module that hold code: no comments, docstrings or blank lines."""
    tokens = tokenize.generate_tokens(io.StringIO(inspect.getsource(thing)).readline)
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    return len({token.start[0] for token in tokens if token.type not in empty and token.string[:3] != '"""'})


@pytest.mark.parametrize("example", [input_times_gradient, logit_pairing, momentum], ids=lambda e: e.__name__)
def test_an_example_is_at_most_thirty_lines(example):
    assert 3 < lines_of_code(example) <= 30


def test_the_data_set_is_classes_and_a_line():
    assert datasets.DATASETS["fashion_mnist"].classes is datasets.CLOTHES and len(datasets.CLOTHES) == 10


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_what_a_row_names_is_there(row):
    """Files, and in them the names that stand beside them."""
    assert len(ROWS) == 4
    for cell in row.strip("|").split("|")[1:]:
        named = re.findall(r"`([^`]+)`", cell)
        paths = [ROOT / name for name in named if "/" in name]
        assert all(path.is_file() for path in paths), cell
        if paths:
            text = "".join(path.read_text(encoding="utf-8") for path in paths)
            assert all(name in text for name in named if "/" not in name), cell
