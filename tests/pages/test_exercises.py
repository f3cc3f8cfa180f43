"""The answers to the exercises at the ends of chapters, computed again."""

import math
import re

import nbformat
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

from interp_lib import Schedule, data, discrepancies, fit, interpreters, models
from interp_lib.attacks import Discrepancy, class_set, dlr, pgd, search_isa, unforeseen, uniform_start
from interp_lib.attacks.ascent import ascend
from interp_lib.attacks.interpretability_sneaking import margin
from interp_lib.interpreters import integrated_gradients, integration
from interp_lib.models import SameConv2d, bounds
from interp_lib.pages import toy
from interp_lib.paper import GAMMA
from interp_lib.study import (
    agreement,
    certificates,
    detection,
    exchanged_rows,
    faithfulness,
    ig_penalty,
    intervals,
    masking,
    records,
)


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


class PixelsAsMaps(torch.nn.Module):
    """Channel k is pixel k, so that the map of class k is half of it and its logit, too."""

    def __init__(self):
        super().__init__()
        self.classifier = torch.nn.Linear(2, 2, bias=False)
        self.classifier.weight.data = torch.eye(2)

    def features(self, x):
        return x * torch.eye(2)[:, None, :]

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def test_chapter_4():
    network, t, aim = PixelsAsMaps(), torch.tensor([0]), torch.tensor([1])
    pixels = lambda *values: torch.tensor(values)[None, None, None]

    def change(x, x_adv, name="2-class"):
        classes = class_set(name, t, aim, 2)
        return discrepancies.discrepancy(*(interpreters.cam(network, z, classes) for z in (x, x_adv))).item()

    x = pixels(0.8, 0.2)
    bound = discrepancies.proposition1_bound(network(x), t, aim).item()
    assert answer("04_attacks_on_maps", 1) == [f"{bound:.2f}"]
    assert all(change(x, pixels(level, level)) == pytest.approx(bound) for level in (0.2, 0.5, 0.8))

    x, corner = pixels(0.6, 0.2), pixels(0.45, 0.35)  # the corner of the ball of 0.15 where the target is likeliest
    assert network(corner).argmax() == 0
    # The second pixel at the end of the ball of 0.3, the first one not above it.
    lowest = min(change(x, pixels(first, 0.5), "1-class") for first in torch.linspace(0.3, 0.5, 21).tolist())
    found = search_isa(
        network, x, t, aim, distance=Discrepancy(classes=t[:, None]), eps=0.3, alpha=0.01, steps=60, tau=0.0
    )
    assert found.success.all() and change(x, found.x_adv, "1-class") > lowest
    assert answer("04_attacks_on_maps", 2) == [f"{(0.6 - 0.2) / 2:.1f}", f"{lowest:.2f}"]

    before, ends = torch.tensor([4.0, 3, 2, 1]), (torch.tensor([1.0, 3, 2, 4]), torch.tensor([8.0, 6, 4, 2]))
    shaped = lambda values: values[None, None, None]
    found = [
        (discrepancies.kendall_tau(shaped(before), shaped(end)).item(), (end - before).abs().sum()) for end in ends
    ]
    assert answer("04_attacks_on_maps", 3) == [f"{found[0][0]:.2f}", *(f"{v:.0f}" for v in (found[0][1], *found[1]))]


def test_chapter_6():
    half = {}
    for dataset, images in (("cifar10", 45_000), ("mnist", 55_000)):
        schedule = Schedule.load("paper", dataset)
        steps = schedule.epochs * (images // schedule.batch_size)
        half[dataset] = next(k for k in range(steps) if schedule.radius(k) >= schedule.eps / 2), steps
    assert answer("06_training", 1) == [
        text for at, steps in half.values() for text in (f"{at:,}", f"{100 * at / steps:.0f}")
    ]
    digits, lesson = data.load("digits"), Schedule.load("lesson", "digits")
    networks = [models.build("small", digits.shape, digits.num_classes, seed=0) for _ in range(2)]
    for network, method in zip(networks, ("Normal", "Int"), strict=True):
        fit(network, digits, method, lesson, seed=0, gamma=0.0, max_steps=30)
    pairs = zip(*(network.parameters() for network in networks), strict=True)
    (limit,) = answer("06_training", 2)
    assert max((p - q).abs().max().item() for p, q in pairs) < float(limit)
    assert answer("06_training", 3) == [f"{9 * 0.05:.2f}", f"{1 - 0.95**9:.2f}", f"{intervals.LEVEL}"]
    assert intervals.holm([0.05 / 9 + 1e-6] + 8 * [1.0])[0] > intervals.LEVEL


def test_chapter_8():
    grey = torch.full((1, 1, 8, 8), 0.5)

    def change(quality, place):
        codec = unforeseen.Codec(grey, quality=quality)
        rounding = torch.zeros_like(codec.encode(grey))
        rounding[0, place] = 0.5
        return 255 * (codec.decode(codec.encode(grey) + rounding) - codec.decode(codec.encode(grey)))

    assert answer("08_unforeseen_attacks", 1) == [f"{change(quality, 0).mean():.0f}" for quality in (50, 25)]
    wave = change(50, 1)
    assert answer("08_unforeseen_attacks", 2) == [f"{abs(wave.mean().item()):.0f}", f"{wave.max():.2f}"]
    right = torch.rand(100_000, 10, generator=torch.Generator().manual_seed(0)) < 0.8
    mean, worst = right.double().mean().item(), right.all(1).double().mean().item()
    assert answer("08_unforeseen_attacks", 3) == [f"{mean:.2f}", f"{worst:.2f}"]


def test_chapter_10():
    attacked, others = torch.tensor([5.0, 2, 1]), torch.tensor([3.0, 2])
    areas = [detection.auc(sign * attacked, sign * others)[0] for sign in (1, -1)]
    assert answer("10_detection", 1) == [f"{area:.2f}" for area in areas]
    digits = data.load("digits").evaluation_subset(6)
    network = models.build("small", data.load("digits").shape, 10)
    silent = detection.scores(network, digits.x, digits.x)
    assert answer("10_detection", 2) == [str(detection.auc(silent[:3], silent[3:])[0])]
    inputs = 1_000_000
    hits, false = 0.95 * inputs / 1000, 0.05 * (inputs - inputs / 1000)
    assert answer("10_detection", 3) == [f"{hits / (hits + false):.3f}"]


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


def test_maps_compared():
    tau = lambda *pair: agreement.rank_correlations(torch.tensor([pair], dtype=torch.float64))[0, 0, 1].item()
    given = [tau((0, 0, 1, 2), (0, 0, 2, 1)), tau((1, 2), (2, 1))]
    assert answer("26_maps_compared", 1) == [f"{value:.1f}".replace("-", "−") for value in given]
    weight = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    network = lambda x: torch.stack([x.flatten(1) @ weight, 1 - x.flatten(1) @ weight], 1).clamp(min=1e-300).log()
    x, first = torch.ones(1, 1, 1, 3, dtype=torch.float64), torch.tensor([0])
    areas = [
        faithfulness.area(
            faithfulness.curve(network, x, 0 * x, faithfulness.ranks(sign * weight.view(1, 1, 3)), first, steps=3)
        )
        for sign in (1, -1)
    ]
    assert answer("26_maps_compared", 2) == [f"{area.item():.3f}" for area in areas]
    x = torch.full((1, 1, 1, 1), 0.8, dtype=torch.float64)
    ig = lambda x, **how: integrated_gradients(OnePixel(0.25), x, first[None], steps=16000, rule="midpoint", **how)
    rise = (ig(x + 0.1) - ig(x - 0.1)).item() / 0.2
    x = x.requires_grad_()
    (slope,) = torch.autograd.grad(ig(x, create_graph=True).sum(), x)
    assert [float(value) for value in answer("26_maps_compared", 3)] == pytest.approx([rise, slope.item()], abs=2e-4)


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


def test_appendix_b():
    layer = SameConv2d(1, 1, 3, stride=2, bias=False)
    layer.weight.data = torch.zeros_like(layer.weight)
    layer.weight.data[0, 0, 1, 0] = 1.0  # hands on the leftmost pixel that a window sees
    row = torch.arange(1.0, 33).expand(1, 1, 32, 32)
    seen = layer(row)[0, 0, 5]
    assert seen[0] == 1 and seen[-1] == 31  # nothing added to the left; the last window reaches one pixel beyond 32
    assert answer("12_appendix_b", 1) == [str(len(seen)), str(int(seen[-1]) + 2 - 32)]
    u = models.build("wresnet", (3, 224, 224), 9).features(torch.zeros(1, 3, 224, 224))[0, 0].numel()
    assert answer("12_appendix_b", 2) == [f"{u:,}", f"{2 * u * GAMMA:.2f}"] and u == 64 * 49
    generator, ends = torch.Generator().manual_seed(0), ([], [])
    for _ in range(20_000):  # four by four pixels of one channel, then of sixteen, all equal over space
        first = torch.randn(16, 16, generator=generator).sum(1) / 4
        second = (torch.randn(16, 16, generator=generator) * first.relu()[:, None]).sum() / 16
        ends[0].append(first[0].item()), ends[1].append(second.item())
    spread = [torch.tensor(values).std().item() for values in ends]
    said = [float(text) for text in answer("12_appendix_b", 3)]
    assert said == pytest.approx([1, math.sqrt(0.5)], abs=0.005) and spread == pytest.approx(said, rel=0.03)


def test_appendix_c():
    x, y = toy.two_pixels(0.7, 0.55), torch.tensor([0])
    network = toy.TwoPixels([(4, 8), (-4, -8), (0, 0)])
    pull = (1 - network(x).softmax(1)[0, 0].item()) * 0.2
    assert answer("13_appendix_c", 1) == [f"{2 * pull / 0.15:.1f}"]
    digits = data.load("digits").evaluation_subset(5)
    small = models.build("small", data.load("digits").shape, 10)
    reach = pgd(small, digits.x, digits.y, eps=0.1, alpha=0.01, steps=1) - digits.x
    assert answer("13_appendix_c", 2) == [f"{reach.abs().max():.2f}"]
    before, after = maps((2, 1), (0, 1)), maps((1, 1), (1, 2))
    of = lambda scale: (
        discrepancies.two_class_discrepancy(scale * before, scale * after).item(),
        2 * discrepancies.proposition1_bound(scale * before.sum((2, 3)), y, torch.tensor([1])).item(),
    )
    assert of(1) == (1.5, 2)
    change, room = of(0.5)
    assert answer("13_appendix_c", 3) == [f"{change:g}", f"{room:g}", f"{change / (room / 2):g}"]


def test_appendix_e():
    distances = {
        row: {name: abs(p - m) for name, m in (("a", 0.58), ("b", 0.9))} for row, p in (("1", 0.5), ("2", 0.6))
    }
    owners = exchanged_rows.assign_rows(distances)
    assert owners == {"1": "a", "2": "b"} and {min(row, key=row.get) for row in distances.values()} == {"a"}
    assert answer("15_appendix_e", 1) == [f"{sum(distances[row][owner] for row, owner in owners.items()):.2f}"]
    touched = set()
    for noise in (0.0, 1e-6):
        x = (noise * torch.rand(1, 1, 2, 2, generator=torch.Generator().manual_seed(0))).requires_grad_()
        touched.add((torch.autograd.grad(F.max_pool2d(x, 2).sum(), x)[0] != 0).sum().item())
    assert answer("15_appendix_e", 2) == [str(count) for count in touched]
    assert answer("15_appendix_e", 3) == [f"{0.015 * 200:.0f}"] and math.sqrt(0.25 / 200) == pytest.approx(
        0.035, abs=5e-4
    )


def test_the_chapter_on_orderings():
    differ = [1] * 8 + [0], [0] * 8 + [1]
    alone, among = (intervals.mcnemar(*(side + [1] * more for side in differ)) for more in (0, 1000))
    assert answer("24_orderings", 1) == [f"{alone:.3f}", f"{among:.3f}"]
    given = [0.01, 0.02, 0.04]
    holm = intervals.holm(given)
    settled = [sum(p <= intervals.LEVEL for p in values) for values in (holm, [3 * p for p in given])]
    assert answer("24_orderings", 2) == [f"{p:.2f}" for p in holm] + [str(count) for count in settled]
    p = torch.rand(100_000, 4, generator=torch.Generator().manual_seed(0)).min(1).values
    for said, factor in zip(map(float, answer("24_orderings", 3)), (1, 4), strict=True):
        assert said == pytest.approx((factor * p <= 0.05).double().mean().item(), abs=0.006)


class Twice(torch.nn.Module):
    """Logits 2x of the true class and 0 of the other, for images of one pixel."""

    def forward(self, x):
        return torch.cat([2 * x.flatten(1), torch.zeros_like(x.flatten(1))], 1)


def test_the_chapter_on_ig_baselines():
    batches = [Schedule.load("paper", name).batch_size for name in ("mnist", "cifar10")]
    assert answer("25_ig_baselines", 1) == [f"{0.1 * size:g}" for size in batches]
    ends = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    t = torch.tensor([0])
    many, five = (integration.path_integral(Twice(), *ends, t, steps=m)[0].abs().sum().item() for m in (10_000, 5))
    assert answer("25_ig_baselines", 2) == [f"{many:.3f}", f"{five:.3f}"]
    of_batch = [
        ig_penalty.batch_integral(Twice(), *(end.repeat(n, 1, 1, 1) for end in ends), t.repeat(n), steps=10_000)
        for n in (2, 50)
    ]
    assert answer("25_ig_baselines", 3) == [f"{each[0].abs().sum().item():.3f}" for each in of_batch]


def test_the_chapter_on_starts_and_radii():
    x = torch.full((10_000, 1, 1, 1), 0.5, dtype=torch.float64)
    loss = lambda z: ((z - 0.5).abs() - 0.1).clamp(min=0).flatten()
    start = uniform_start(x, 0.3, torch.Generator().manual_seed(0))
    how = {"eps": 0.3, "alpha": 0.01, "steps": 40}
    from_x, from_there = (loss(ascend(loss, x, start=begin, **how)) for begin in (None, start))
    reached = (from_there > 0.2 - 1e-9).double().mean().item()
    said = answer("28_starts_and_radii", 1)
    assert (from_x == 0).all() and said[0] == "0" and float(said[1]) == pytest.approx(reached, abs=0.015)
    assert said[2] == f"{(1 - 2 / 3) ** 5:.3f}" and ((from_there == 0) | (from_there > 0.2 - 1e-9)).all()
    x = torch.full((200, 1, 28, 28), 0.5)
    far = (uniform_start(x, 0.1, torch.Generator().manual_seed(0)) - x).abs().flatten(1) / 0.1
    assert [float(text) for text in answer("28_starts_and_radii", 2)] == pytest.approx(
        [far.mean().item(), far.amax(1).mean().item()], abs=1e-3
    )
    assert answer("28_starts_and_radii", 3) == [f"{intervals.proportion(0, 200)[1]:.3f}"]
