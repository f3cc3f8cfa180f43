"""Accuracies under PGD: one run for all numbers of steps, against separate runs."""

import math

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_lib import paper
from interp_lib.attacks.ascent import uniform_start
from interp_lib.attacks.projected_gradient_descent import pgd
from interp_lib.models import released
from interp_lib.models.architectures import build
from interp_lib.models.predict import classified_right, count_correct, predictions
from interp_lib.study import accuracy, records
from interp_lib.study.accuracy import pgd_accuracy, proportion, random_start_accuracy


def batch(n=12, shape=(1, 3, 3), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, *shape, generator=generator, dtype=dtype), torch.arange(n) % 2


def separate(model, x, y, eps, steps, alpha):
    """A run of its own for every pair, as the definition says."""
    return [
        count_correct(model, pgd(model, x, y, eps=e, alpha=alpha, steps=k), y)
        for e in sorted(set(eps))
        for k in sorted(set(steps))
    ]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    eps=st.lists(
        st.one_of(st.sampled_from([0, 0.02, 0.05, 0.1, 0.3, 8 / 255]), st.floats(0, 0.4)),
        min_size=1,
        max_size=4,
    ),
    steps=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    alpha=st.sampled_from([0.0, 0.01, 0.02, 0.037, 0.5]),
    single=st.booleans(),
)
def test_counts_are_those_of_separate_runs(seed, eps, steps, alpha, single):
    dtype = torch.float32 if single else torch.float64
    model, (x, y) = toys.Crooked(seed, dtype), batch(seed=seed, dtype=dtype)
    rows = pgd_accuracy(model, x, y, eps=eps, steps=steps, alpha=alpha)
    assert [row["correct"] for row in rows] == separate(model, x, y, eps, steps, alpha)
    pairs = [(e, k) for e in sorted(set(map(float, eps))) for k in sorted(set(steps))]
    assert [(row["eps"], row["steps"]) for row in rows] == pairs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "eps, alpha, steps",
    [
        ((0.05, 0.1, 0.2, 0.3), 0.01, (1, 3, 5, 6, 10, 12, 35)),
        ((2 / 255, 4 / 255, 8 / 255), 0.01, (1, 2, 4)),
    ],
)
def test_iterates_are_those_of_separate_runs_to_the_bit(eps, alpha, steps, dtype, monkeypatch):
    model, (x, y) = toys.Crooked(1, dtype), batch(dtype=dtype)
    seen = []
    monkeypatch.setattr(accuracy, "classified_right", lambda m, x, y: seen.append(x) or classified_right(m, x, y))
    pgd_accuracy(model, x, y, eps=eps, steps=steps, alpha=alpha)
    for e in eps:
        for k in steps:
            x_adv = pgd(model, x, y, eps=e, alpha=alpha, steps=k)
            assert any(torch.equal(x_adv, s) for s in seen), (e, k)


def test_batches_together_count_what_all_images_count():
    x, y = batch(12)
    arguments = {"eps": [0, 0.05, 0.1], "steps": [1, 4], "alpha": 0.03}
    whole = pgd_accuracy(toys.Crooked(3), x, y, **arguments)
    assert accuracy.pgd_accuracy_in_batches(toys.Crooked(3), x, y, batch_size=5, **arguments) == whole
    assert len({row["correct"] for row in whole}) > 1
    for row in whole:
        x_adv = pgd(toys.Crooked(3), x, y, eps=row["eps"], alpha=0.03, steps=row["steps"])
        assert records.outcomes_of(row["right"], 12) == (predictions(toys.Crooked(3), x_adv) == y).tolist()


def test_no_step_is_taken_twice():
    """A grid like Table 3's: six radii, and as many steps for each as the longest run has."""
    eps, (x, y) = (0, 0.05, 0.1, 0.2, 0.3, 0.35, 0.4), batch(3)
    model, done = toys.Crooked(0), []
    pgd_accuracy(model, x, y, eps=eps, steps=(1, 10, 100, 200), progress=done.append)
    assert model.calls == sum(done) == 1200


def test_eps_or_steps_of_zero_is_the_clean_accuracy():
    model, (x, y) = toys.Crooked(0), batch()
    clean = count_correct(model, x, y)
    assert 0 < clean < 12
    rows = pgd_accuracy(model, x, y, eps=(0, 0.3), steps=(0, 5))
    by_pair = {(row["eps"], row["steps"]): row["correct"] for row in rows}
    assert by_pair[0, 0] == by_pair[0, 5] == by_pair[0.3, 0] == clean > by_pair[0.3, 5]
    assert [row["correct"] for row in pgd_accuracy(model, x, y, eps=(0,), steps=(3,))] == [clean]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"eps": (0.1, -0.1)}, "eps"),
        ({"eps": (0, 8)}, "Write 8/255"),
        ({"eps": (0, float("nan"))}, "eps"),
        ({"steps": (1, -1)}, "steps"),
        ({"steps": (1, 2.5)}, "steps"),
        ({"alpha": -0.01}, "alpha"),
        ({"x": 255 * batch()[0]}, "Divide bytes by 255"),
        ({"y": torch.arange(12)}, "0 .. 1; got 0 .. 11"),
        ({"eps": (0,), "x": 255 * batch()[0]}, "Divide bytes by 255"),
    ],
)
def test_bad_input_is_refused(change, words):
    x, y = batch()
    arguments = {"x": x, "y": y, "eps": (0.1,), "steps": (1,), "alpha": 0.01} | change
    with pytest.raises(ValueError) as caught:
        pgd_accuracy(toys.Crooked(0), **arguments)
    assert words in str(caught.value)


@given(n=st.integers(1, 500), data=st.data())
def test_proportion_has_the_standard_error_of_its_sample(n, data):
    correct = data.draw(st.integers(0, n))
    right = torch.arange(n) < correct
    row, outcomes = proportion(right), right.double()
    assert row["accuracy"] == pytest.approx(outcomes.mean().item())
    assert row["se"] == pytest.approx(outcomes.std(correction=0).item() / math.sqrt(n), abs=1e-12)
    assert (row["correct"], row["n"]) == (correct, n)


@pytest.mark.parametrize("batch_size", [1, 5, 7, 1000])
def test_predictions_do_not_depend_on_the_batch_size(batch_size, make_images):
    model = build("small", seed=0).train()
    x = make_images(7, dtype=torch.float32)
    predicted = predictions(model, x, batch_size)
    assert torch.equal(predicted, model(x).argmax(1)) and predicted.dtype == torch.int64
    assert model.training and not predicted.requires_grad


def test_predictions_are_those_of_evaluation_mode():
    model = toys.Stateful().double()
    x, _ = batch(50)
    assert torch.equal(predictions(model, x), model.eval()(x).argmax(1))


@pytest.mark.parametrize("method", ["Normal", "Adv"])
def test_released_networks_give_table_3(released_folder, mnist_subset, method):
    """The clean and one attacked column; the whole is measured by the pipeline."""
    printed = {
        (row["method"], row["level"]): row["value"]
        for row in paper.paper_tables()
        if (row["table"], row["dataset"]) == ("3", "MNIST")
    }
    network = released.read_network(released.find("mnist", "small", method, released_folder))
    rows = pgd_accuracy(network, mnist_subset.x, mnist_subset.y, eps=(0, 0.1), steps=(200,))
    assert [f"{row['accuracy']:.3f}" for row in rows] == [printed[method, level] for level in ("0", "0.1")]


# From random points


def test_a_random_start_finds_what_a_dead_gradient_hides():
    """Of 40 images of two pixels some starts fall above .5, in sight of the other class; none does for x itself."""
    x, y = torch.full((40, 1, 1, 2), 0.5), torch.zeros(40, dtype=torch.int64)
    (plain,) = pgd_accuracy(toys.Dead(), x, y, eps=[0.3], steps=[20])
    one, five = random_start_accuracy(toys.Dead(), x, y, eps=[0.3], steps=20, starts=(1, 5))
    generator, seen = torch.Generator().manual_seed(0), torch.zeros(40, dtype=torch.bool)
    expected = []
    for _ in range(5):
        seen |= uniform_start(x, 0.3, generator).mean((1, 2, 3)) > 0.5
        expected.append(int((~seen).sum()))
    assert plain["correct"] == 40 > one["correct"] == expected[0] > five["correct"] == expected[-1] < 5
    assert (one["starts"], five["starts"]) == (1, 5) and one["steps"] == five["steps"] == 20


def test_starts_are_counted_together_and_the_fooled_left_out():
    (x, y), model, sizes = batch(12), toys.Crooked(0), []
    rows = random_start_accuracy(
        model, x, y, eps=(0, 0.1), starts=(1, 2, 3), steps=4, alpha=0.05, progress=sizes.append
    )
    generator, right = torch.Generator().manual_seed(0), predictions(model, x) == y
    clean, left = int(right.sum()), []
    for _ in range(3):
        x_adv = pgd(model, x, y, eps=0.1, alpha=0.05, steps=4, random_start=True, generator=generator)
        right &= predictions(model, x_adv) == y
        left.append(int(right.sum()))
    assert [r["correct"] for r in rows] == [clean] * 3 + left and sizes == [4] * 3
    assert [(r["eps"], r["starts"]) for r in rows] == [(e, k) for e in (0.0, 0.1) for k in (1, 2, 3)]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"starts": (0, 1)}, "starts must be a whole number >= 1"),
        ({"starts": ()}, "starts must hold at least one"),
        ({"eps": (0, 8)}, "Write 8/255"),
        ({"x": 255 * batch()[0]}, "Divide bytes by 255"),
        ({"y": torch.arange(12)}, "0 .. 1; got 0 .. 11"),
    ],
)
def test_bad_input_for_random_starts_is_refused(change, words):
    x, y = batch()
    with pytest.raises(ValueError, match=words.replace(".", "[.]")):
        random_start_accuracy(toys.Crooked(0), **({"x": x, "y": y, "eps": (0.1,), "steps": 1} | change))
