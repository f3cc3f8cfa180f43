"""The black image on the paper's networks: by hand, and what the records say of it."""

import pytest
import torch
import toys
from conftest import ROOT

from interp_lib.study import black, records

STORED = {
    record.settings["dataset"]: {row["method"]: row for row in record.rows}
    for record in records.read_all(ROOT / "results")
    if record.settings["measurement"] == "black"
}


def test_by_hand():
    model = toys.Linear(2, pixels=1).float()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [2.0]]))
        model.bias.copy_(torch.tensor([-3.0, 0.5]))
    x = torch.tensor([0.1, 0.5, 0.7]).view(3, 1, 1, 1)
    (row,) = black.black_rows(model, x, torch.tensor([0, 1, 1]))
    assert row == {"largest": 3.0, "class": 1, "median_logit": pytest.approx(1.5), "n": 3}


def test_the_logits_of_the_black_image_are_not_small():
    # At least a tenth of the median logit of an image on every network, and more than it on Int.
    for rows in STORED.values():
        assert len(rows) == 8 and all(row["largest"] > 0.1 * row["median_logit"] > 0 for row in rows.values())
        assert all(rows[m]["largest"] > rows[m]["median_logit"] for m in ("Int", "Int-Adv", "Int-1-class"))
