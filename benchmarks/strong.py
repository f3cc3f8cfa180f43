"""AutoAttack's attacks here and in torchattacks: seconds, in one run, and agreement image by image.

    INTERP_RELEASED=... INTERP_DATA=... python benchmarks/strong.py --images 200

Both run AutoAttack's sequence at eps 0.3 on the same images of three released networks, each attack on the images that
it has itself left right so far, with 100 steps and `--queries` queries: APGD-CE, APGD-T, Square. FAB-T, which is not
written here, then attacks what both leave, by torchattacks on the folded logits. With --write the outcome of every
image goes into a record of results/, network by network, which the chapter on today's attacks reads; a network that is
in the record already is not attacked again.
"""

import argparse
import importlib.metadata
import os
import time

import torch
import torchattacks
from side_by_side import subject

from interp_lib import data, storage
from interp_lib.attacks import apgd, square
from interp_lib.fast.fold import fold_logits
from interp_lib.models.predict import classified_right
from interp_lib.study import records
from interp_lib.study.accuracy import proportion
from interp_lib.study.strong import targets

EPS, STEPS = 0.3, 100


def here(model, x, y, queries):
    generator = lambda: torch.Generator().manual_seed(0)
    yield lambda x, y: apgd(model, x, y, eps=EPS, steps=STEPS, generator=generator())

    def towards_each(x, y):
        best, others = x.clone(), targets(model, x, y)
        left = torch.ones(len(x), dtype=torch.bool)
        for k in range(others.shape[1]):
            i = left.nonzero()[:, 0]
            if len(i):
                best[i] = apgd(model, x[i], y[i], eps=EPS, steps=STEPS, target=others[i, k], generator=generator())
                left[i] = classified_right(model, best[i], y[i])
        return best

    yield towards_each
    yield lambda x, y: square(model, x, y, eps=EPS, queries=queries, generator=generator())


def peer(model, x, y, queries):
    yield torchattacks.APGD(model, eps=EPS, steps=STEPS, seed=0)
    yield torchattacks.APGDT(model, eps=EPS, steps=STEPS, seed=0, n_classes=10)
    yield torchattacks.Square(model, eps=EPS, n_queries=queries, seed=0)


class Logits(torch.nn.Module):
    """The folded logits as the module that torchattacks asks for."""

    def __init__(self, model):
        super().__init__()
        self.logits = fold_logits(model)

    def forward(self, x):
        return self.logits(x)


def fab(model, x, y, right):
    """Who of those who are right is still right after FAB-T."""
    right, index = right.clone(), right.nonzero()[:, 0]
    if len(index):
        attack = torchattacks.FAB(Logits(model).eval(), eps=EPS, steps=STEPS, multi_targeted=True, n_classes=10)
        right[index] = classified_right(model, attack(x[index], y[index]), y[index])
    return right


def sequence(attacks, model, x, y):
    """Seconds of each attack, and who is right after it."""
    right, seconds, after = classified_right(model, x, y), [], []
    for attack in attacks:
        before, index = time.perf_counter(), right.nonzero()[:, 0]
        if len(index):
            right[index] = classified_right(model, attack(x[index], y[index]), y[index])
        seconds.append(time.perf_counter() - before)
        after.append(right.clone())
    return seconds, after


def empty_record(args):
    """The record of these settings, without rows."""
    mnist = data.load("mnist", download=False)
    settings = {"measurement": "peer", "dataset": "mnist", "title": mnist.title, "data": mnist.fingerprint}
    settings |= {"subset": {"n": args.images, "seed": 99}, "model": "small", "networks": "released", "eps": EPS}
    settings |= {"steps": STEPS, "queries": args.queries, "threads": args.threads}
    settings |= {"torchattacks": importlib.metadata.version("torchattacks")}
    return records.Record("peer-mnist-small-released", settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--methods", default="Adv,TRADES,Int")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help="write the record")
    args = parser.parse_args()
    if args.write and not (os.environ.get("INTERP_RELEASED") and os.environ.get("INTERP_DATA")):
        parser.error("--write needs the released networks and MNIST: set INTERP_RELEASED and INTERP_DATA")
    record = empty_record(args) if args.write else None
    path = record and records.RESULTS / f"{record.name}.json"
    if path and path.exists():
        record = records.read(path)
    torch.set_num_threads(args.threads)
    for method in args.methods.split(","):
        if record and method in {row["method"] for row in record.rows}:
            print(f"{method} is in {path} already")
            continue
        rows, began = [], time.perf_counter()
        model, subset, what = subject(method, args.images)
        x, y = subset.x, subset.y
        print(f"{what}; {len(x)} images, eps {EPS}, {STEPS} steps, {args.queries} queries, threads: {args.threads}")
        found = {f.__name__: sequence(f(model, x, y, args.queries), model, x, y) for f in (here, peer)}
        for k, name in enumerate(("APGD-CE", "APGD-T", "Square")):
            seconds, right = zip(*((s[k], r[k]) for s, r in found.values()), strict=True)
            ratio = seconds[1] / max(seconds[0], 1e-9)
            print(
                f"{name:8} {seconds[0]:7.1f} s here, {seconds[1]:7.1f} s torchattacks, {ratio:5.1f} times; "
                f"left {right[0].float().mean():.3f} and {right[1].float().mean():.3f}, "
                f"the same for {int((right[0] == right[1]).sum())} of {len(x)} images",
                flush=True,
            )
            for code, outcome, time_taken in zip(("here", "torchattacks"), right, seconds, strict=True):
                row = {"method": method, "attack": name, "code": code, **proportion(outcome)}
                rows.append({**row, "seconds": round(time_taken, 1)})
        began_fab, both = time.perf_counter(), found["here"][1][-1] & found["peer"][1][-1]
        left = fab(model, x, y, both)
        seconds = time.perf_counter() - began_fab
        print(
            f"FAB-T    {seconds:7.1f} s torchattacks; takes {int((both & ~left).sum())} of {int(both.sum())}",
            flush=True,
        )
        row = {"method": method, "attack": "FAB-T", "code": "torchattacks", **proportion(left)}
        rows.append({**row, "seconds": round(seconds, 1)})
        if record:
            record.rows += rows
            seconds = record.provenance.get("seconds", 0) + time.perf_counter() - began
            record.provenance = storage.provenance(seconds, "cpu")
            print(records.write(record), flush=True)


if __name__ == "__main__":
    main()
