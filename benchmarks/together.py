"""A training step on a GPU: launched from Python, recorded, of several networks at once. Milliseconds.

    python benchmarks/together.py --write
    python benchmarks/together.py --dataset cifar10 --model wresnet --methods Adv,Int --sizes 1

For every method: a step of one network as `training.fit` takes it, the same step recorded as a CUDA graph, and recorded
steps of stacks of several networks; then all methods beside each other, each a stack of so many networks on a stream of
its own. Images are noise: the time does not depend on what is on them. With --write the times go into a record of
results/, which the chapter on training reads.
"""

import argparse
import sys
import time
from dataclasses import replace

import torch
from tqdm import tqdm
from training import DATASETS, METHODS

from interp_lib import storage
from interp_lib.checks import use_device
from interp_lib.data import Dataset, Split
from interp_lib.models.architectures import ARCHITECTURES, build
from interp_lib.schedule import PRECISIONS, Schedule
from interp_lib.study import records
from interp_lib.training import methods
from interp_lib.training.group import Group
from interp_lib.training.loop import inner_maximum
from interp_lib.training.run import Run, generator


def noise(name, device):
    """A dataset of noise of the size of a real one."""
    shape, images = DATASETS[name]
    seeded = generator(0, "images", 0)

    def split(n):
        pixels = torch.randint(256, (n, *shape), generator=seeded, dtype=torch.uint8)
        return Split(pixels.to(device), (torch.arange(n) % 10).to(device))

    return Dataset(name, name, "noise", "noise", tuple("0123456789"), split(images), split(5000), split(10))


def network(args, dataset, seed):
    return build(args.model, dataset.shape, dataset.num_classes, seed=seed).to(args.device)


def launched(args, dataset, method, schedule):
    """Milliseconds of a step whose kernels Python launches one by one, at the full radius."""
    model, batch = network(args, dataset, 0), slice(schedule.batch_size)
    dtype = None if args.precision == "float32" else getattr(torch, args.precision)
    x, y = dataset.train.x(batch), dataset.train.labels[batch]
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step(number):
        problem, x_adv = methods.METHODS[method](model, x, y, dtype=dtype), x
        if problem.objective:
            seeded = generator(0, "start", number, args.device)
            x_adv = inner_maximum(problem.objective, x, eps=schedule.eps, schedule=schedule, generator=seeded)
        optimizer.zero_grad(set_to_none=True)
        problem.loss(x_adv).mean().backward()
        optimizer.step()

    step(0)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for number in range(args.steps):
        step(number)
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - began) / args.steps


def recorded(args, dataset, methods, size, schedule):
    """Milliseconds in which each of these methods has taken a step of a stack of `size` networks."""
    groups = []
    for method in methods:
        runs = [
            Run(network(args, dataset, seed), dataset, method, schedule, seed=seed, precision=args.precision)
            for seed in range(size)
        ]
        groups.append(Group(runs))
        groups[-1].at = schedule.ramp_end  # the full radius
        groups[-1].step.fill_(schedule.ramp_end)
        groups[-1].record()

    def steps(number):
        for _ in range(number):
            for group in groups:
                with group.on_stream():
                    group.do("take_step")
        torch.cuda.synchronize()

    steps(2)
    began = time.perf_counter()
    steps(args.steps)
    seconds = time.perf_counter() - began
    if not all(torch.isfinite(p).all() for group in groups for p in group.parameters):
        sys.exit(f"{', '.join(methods)}: weights are no numbers after {args.steps} steps")
    return 1e3 * seconds / args.steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=list(DATASETS), default="mnist", help="(%(default)s)")
    parser.add_argument("--model", choices=list(ARCHITECTURES), default="small", help="(%(default)s)")
    parser.add_argument("--methods", default=",".join(METHODS), help="(all eight)")
    parser.add_argument("--sizes", default="1,2,4,8", help="networks of a stack (%(default)s)")
    parser.add_argument("--beside", default="1,3", help="networks of each stack, all methods at once (%(default)s)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="(%(default)s)")
    parser.add_argument("--attack-steps", type=int, help="inner steps (those of the paper)")
    parser.add_argument("--steps", type=int, default=20, help="timed steps (%(default)s)")
    parser.add_argument("--write", action="store_true", help="write the record that the chapter on training reads")
    parser.add_argument("--results-dir", default=str(records.RESULTS))
    args = parser.parse_args()
    args.device = use_device("cuda")
    methods, sizes = args.methods.split(","), [int(size) for size in args.sizes.split(",")]
    schedule, dataset = Schedule.load("paper", args.dataset), noise(args.dataset, args.device)
    if args.attack_steps:
        schedule = replace(schedule, attack_steps=args.attack_steps)
    storage.commit()  # of the code that is timed
    began, rows = time.perf_counter(), []
    per_epoch = len(dataset.train) // schedule.batch_size
    print(
        f"{args.model}, {args.dataset}, batch {schedule.batch_size}, {schedule.attack_steps} inner steps; "
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    )

    def add(names, size, ms, how):
        rows.append(
            {
                "methods": list(names),
                "networks": size * len(names),
                "stack": size,
                "how": how,
                "ms_a_step": round(ms, 3),
                "seconds_an_epoch": round(ms * per_epoch / 1e3, 2),
            }
        )
        what = names[0] if len(names) == 1 else f"{len(names)} methods"
        print(
            f"{what:14} {how:9} {size:3} a stack: {ms:8.2f} ms a step of all, {size * len(names) / ms:7.3f} "
            "networks' steps a ms",
            flush=True,
        )

    for method in tqdm(methods, disable=None, file=sys.stderr):
        add([method], 1, launched(args, dataset, method, schedule), "launched")
        for size in sizes:
            add([method], size, recorded(args, dataset, [method], size, schedule), "recorded")
    if len(methods) > 1:
        for size in [int(size) for size in args.beside.split(",")]:
            add(methods, size, recorded(args, dataset, methods, size, schedule), "recorded")
    if args.write:
        settings = {
            "measurement": "training-time-gpu",
            "dataset": args.dataset,
            "model": args.model,
            "networks": "ours",
            "batch": schedule.batch_size,
            "attack_steps": schedule.attack_steps,
            "precision": args.precision,
            "steps": args.steps,
            "images_an_epoch": len(dataset.train),
        }
        provenance = storage.provenance(time.perf_counter() - began, args.device)
        record = records.Record(f"training-time-gpu-{args.dataset}-{args.model}", settings, rows, provenance)
        print(records.write(record, args.results_dir))


if __name__ == "__main__":
    main()
