"""What the benchmarks share: the network and images that they run on, and turns in one process."""

import os
import time

from interp_lib import data
from interp_lib.models import released
from interp_lib.models.architectures import build


def subject(method, images=200):
    """Network, evaluation subset and what they are: the paper's, or else a seeded network on digits."""
    if os.environ.get("INTERP_RELEASED") and os.environ.get("INTERP_DATA"):
        subset = data.load("mnist", download=False).evaluation_subset(images)
        model = released.read_network(released.find("mnist", "small", method))
        return model, subset, f"released network MNIST Small {method}, the paper's images"
    digits = data.load("digits")
    model = build("small", digits.shape, digits.num_classes, seed=0).eval()
    note = "INTERP_RELEASED or INTERP_DATA is not set: an UNTRAINED Small of seed 0 on digits; do not quote"
    return model, digits.evaluation_subset(images), note


def in_turns(functions, rounds, *, warm_up=True):
    """Seconds of every function in every round, and what it returned; another one goes first every round."""
    names, seconds, results = list(functions), {name: [] for name in functions}, {}
    if warm_up:
        for name in names:
            functions[name]()
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            before = time.perf_counter()
            results[name] = functions[name]()
            seconds[name].append(time.perf_counter() - before)
    return seconds, results
