"""The answers to the exercises at the ends of chapters, computed again."""

import math
import re

import nbformat
import pytest
import torch
from conftest import ROOT

from interp_lib import discrepancies, interpreters, models
from interp_lib.attacks import dlr, pgd
from interp_lib.attacks.interpretability_sneaking import margin
from interp_lib.interpreters import integrated_gradients
from interp_lib.models import bounds
from interp_lib.study import certificates, intervals, masking, records


def answer(chapter, number):
    """What stands in bold in an answer."""
    cells = nbformat.read(ROOT / f"book/{chapter}.ipynb", 4).cells
    (text,) = (cell.source for cell in cells if cell.source.startswith("## Exercises"))
    (found,) = re.findall(
        rf"^```{{admonition}} Answer {number}\n:class: dropdown\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    )
    return re.findall(r"\*\*(.+?)\*\*", found)


def maps(*pixels):
    """Maps of one image, (1, k, 1, u)."""
    return torch.tensor(pixels, dtype=torch.float64)[None, :, None, :]


def test_chapter_1():
    weights = sum(p.numel() for p in models.build("small", (1, 28, 28), 10).parameters())
    error = math.sqrt(0.79 * 0.21 / 200)
    assert answer("01_setup", 1) == [f"{weights:,}"]
    assert answer("01_setup", 2) == [f"{error:.3f}", "800"] and math.sqrt(0.79 * 0.21 / 800) == pytest.approx(error / 2)


class OnePixel(torch.nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.bias = bias

    def forward(self, x):
        score = (x.flatten(1) - self.bias).relu()
        return torch.cat([score, torch.zeros_like(score)], 1)


def test_chapter_2():
    one, first = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.tensor([[0]])
    given = lambda **how: f"{integrated_gradients(OnePixel(0.25), one, first, **how).item():.2f}"
    assert answer("02_interpretation", 1) == [given(steps=2, rule="right"), given(steps=4, rule="left")]
    assert answer("02_interpretation", 2) == [given(steps=1, rule="right", baseline=one / 4)]
    product = [interpreters.input_times_gradient(OnePixel(bias), one, first).item() for bias in (0, 0.25)]
    assert product == [1, 1] and OnePixel(0.25)(one)[0, 0] == 0.75


def test_chapter_3():
    before = maps((2, 1), (0, 1))
    shift = lambda *after: discrepancies.two_class_discrepancy(before, maps(*after)).item()
    bound = discrepancies.proposition1_bound(before.sum((2, 3)), torch.tensor([0]), torch.tensor([1]))
    assert answer("03_discrepancy", 1) == [str(shift((3, 0), (1, 0)))] and bound == 1
    assert answer("03_discrepancy", 2) == [str(shift((1, 1), (1, 1)))]
    alone = discrepancies.discrepancy(before[:, :1], before[:, :1]).item()
    assert answer("03_discrepancy", 3) == [str(alone), str(shift((2, 1), (2, 1)))]


def test_chapter_5():
    assert answer("05_defense", 1) == [
        str(2 * models.build("small", (3, 32, 32), 10).features(torch.zeros(1, 3, 32, 32))[0, 0].numel())
    ]
    still, moved = maps((0, 0), (0, 0), (0, 0)), maps((1, 0), (1, 1), (2, -1))
    given = [
        discrepancies.target_free_discrepancy(
            still, moved, torch.tensor([0]), torch.zeros(1, 3, dtype=torch.float64), renormalise=renormalise
        ).item()
        for renormalise in (True, False)
    ]
    assert answer("05_defense", 2) == [f"{value:.3f}" for value in given]
    pull = (1 - torch.tensor([0.6, -0.6, 0.0]).softmax(0)[0].item()) * 0.05
    assert answer("05_defense", 3) == [f"{2 * pull:.3f}"] and 2 * pull < 0.05


def test_chapter_7():
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2, bias=False))
    linear[1].weight.data = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]])
    x = torch.tensor([[[[0.5, 0.1, 0.9]]]])
    path = lambda steps: pgd(linear, x, torch.tensor([0]), eps=0.3, alpha=0.01, steps=steps)
    end = path(30)
    place = ", ".join(f"{value:.1f}" for value in end.flatten())
    assert answer("07_robustness", 1) == [f"({place})", f"{linear(end)[0, 0]:.1f}"]
    reach = (path(10) - x).abs().max().item()
    assert answer("07_robustness", 2) == ["30", f"{reach:.1f}"]
    a, b = 71 / 200, 36 / 200
    apart = math.sqrt((a * (1 - a) + b * (1 - b)) / 200)
    assert answer("07_robustness", 3) == [f"{apart:.3f}", f"{math.sqrt((a - b) * (1 - a + b) / 200):.3f}"]


def test_todays_attacks():
    logits, true = torch.tensor([[4.0, 1.0, 3.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    given = [dlr(logits, true, target).item() for target in (torch.tensor([2]), None)]
    assert answer("09_strong_attacks", 1) == [f"{value:.3f}" for value in given]
    sure = torch.tensor([[20.0, 0.0]], dtype=torch.float64, requires_grad=True)
    slopes = [
        torch.autograd.grad(loss.sum(), sure)[0][0, 0].abs().item()
        for loss in (torch.nn.functional.cross_entropy(sure, true), margin(sure, true))
    ]
    assert answer("09_strong_attacks", 2) == [f"{slopes[0]:.1e}", f"{slopes[1]:.0f}"]
    p = intervals.mcnemar([1] * 10 + [0] * 3 + [1] * 187, [0] * 10 + [1] * 3 + [1] * 187)
    assert answer("09_strong_attacks", 3) == [f"{p:.3f}", f"{intervals.holm([p] + [1.0] * 7)[0]:.3f}"]


def test_certificates():
    small = models.build("small", (1, 1, 2), 2).double()  # Small as the network by hand
    with torch.no_grad():
        for weights in small.parameters():
            weights.zero_()
        small.conv1.weight[:2, 0, 1, 1:3] = torch.tensor([[1.0, 2.0], [1.0, 0.0]])
        small.conv2.weight[[0, 1], [0, 1], 1, 1] = 1.0
        small.conv3.weight[[0, 1], [0, 1], 3, 3] = 1.0
        small.classifier.weight[[0, 1], [0, 1]] = 1.0
    x, true, target = torch.tensor([[[[0.5, 0.4]]]], dtype=torch.float64), torch.tensor([0]), torch.tensor([[1]])
    rows, room = models.map_rows(small), margin(small(x), true).item()
    gain = lambda form: certificates.largest_gain(models.Ball(small, x, 0.1), rows, true, target, form).item()
    assert answer("18_certificates", 1) == [f"{0.1 * room / gain(form):.1f}" for form in ("logits", "2-class")]

    def gap(low, high, z):
        lines = bounds._lines(*(torch.full((1, 1, 1, 1), float(side)) for side in (low, high)))
        return (lines.above * z + lines.offset - lines.below * z).item()

    assert answer("18_certificates", 2) == [f"{gap(*given):g}" for given in ((-1, 3, 0), (-1, 3, 3), (-3, 1, 1))]
    with torch.no_grad():
        small.conv1.weight[:2, 0, 1, 1:3] = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        small.conv2.weight[0, [0, 1], 1, 1] = torch.tensor([1.0, -1.0], dtype=torch.float64)
    highest = [models.Ball(small, x, 0.1, kind).high[0, 0, 0, 0].item() for kind in bounds.KINDS]
    assert answer("18_certificates", 3) == [f"{abs(value):.1f}" for value in highest]


def test_masked_gradients():
    flagged = lambda n: next(k for k in range(n) if masking.flagged({"against": k, "n": n}))
    assert answer("19_masking", 1) == [str(flagged(n)) for n in (50, 194, 200)]
    (record,) = (r for r in records.read_all(ROOT / "results") if r.family == "masking-mnist-small-released")
    (row,) = (r for r in record.rows if (r["method"], r["check"], r["eps"]) == ("Int", "random start", 0.35))
    random, from_x = sorted(row["left"])
    assert answer("19_masking", 2) == [str(max(0, random + from_x - row["n"])), str(random)]
    always = lambda x: torch.nn.functional.one_hot(torch.zeros(len(x)).long(), 10) + 0 * x.sum((1, 2, 3))[:, None]
    x = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    checks = {r["check"]: r for r in masking.masking_rows(always, x, torch.arange(20) % 10, eps=0.1, queries=20)}
    assert answer("19_masking", 3) == [str(checks["whole box"][key]) for key in ("against", "n")]
    assert masking.flagged(checks["gradient at x"])


def test_appendix_a():
    before, after = maps((2, 1), (0, 1)), maps((1, 1), (2, 0))
    moved = 2 * discrepancies.two_class_discrepancy(before, after).item()
    f, f_adv = (m.sum((2, 3))[0].tolist() for m in (before, after))
    assert answer("11_appendix_a", 1) == [str(moved - (f_adv[1] - f_adv[0]) - (f[0] - f[1]))]
    assert answer("11_appendix_a", 3) == [str(math.isqrt(49))]


def test_appendix_d():
    x, x_adv = maps((0, 2, 4)), maps((1, 2, 2))
    given = [discrepancies.normalised_discrepancy(x, x_adv, p).item() for p in (1, 2)]
    assert answer("14_appendix_d", 1) == [f"{value:.3f}" for value in given]
    slope = discrepancies.normalised_slope(torch.tensor([0.8, 0.6]), torch.tensor([0.1, 0.2]))
    assert answer("14_appendix_d", 2) == [f"{slope.item():.2f}"]
    assert discrepancies.normalised_discrepancy(2 * x, 2 * x_adv).item() == pytest.approx(given[0])
