"""Train many networks at once on a GPU: training steps as CUDA graphs, seeds stacked, methods on parallel streams.

A step of Small is a thousand kernels of some microseconds each. Launched one by one from Python they take ten times as
long. Captured once and replayed (a CUDA graph), the GPU is the limit, and one network's kernels do not fill it. So the
runs of one method and architecture become one `fast.stack.Stack`, whose kernels do the work of all runs, and the
graphs of several stacks run in parallel, each on its own stream.

A captured step takes no value from Python: it looks up its images, radius and learning rate in tables, by the number
of the step. Random starts are drawn as `training.fit` draws them on the same device. On a CPU the same steps run
without a capture.
"""

import math
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

from .group import Group
from .run import Diverged, Run, deferred_interrupt


def groups_of(runs: Sequence[Run], at_most: int = 8) -> list[Group]:
    """Group runs that can be stacked, at most `at_most` runs per group; leave out finished runs."""
    kinds: dict[tuple, list[Run]] = {}
    for run in runs:
        kind = (run.model.name, run.method, run.schedule, run.precision, run.dataset.fingerprint, run.step)
        alone = () if run.model.stackable else (run.seed, run.gamma)
        kinds.setdefault((*kind, *alone), []).append(run)
    stacks = [group[k : k + at_most] for group in kinds.values() for k in range(0, len(group), at_most)]
    return [Group(stack) for stack in stacks if stack[0].step < stack[0].total]


def fit_together(
    runs: Sequence[Run],
    *,
    max_steps: int | None = None,
    finished: Callable[[Run], object] | None = None,
    until: float = math.inf,
) -> None:
    """Train the networks of all runs in place, at the same time. An interrupted call leaves checkpoints, like `fit`.

    Args:
        runs: each as `fit` would make it; methods, architectures, seeds and gammas may differ.
        max_steps: stop, with checkpoints, after this many training steps of each run.
        finished: a function called with each run as soon as it has taken all its steps.
        until: stop, with checkpoints, when `time.monotonic()` has reached this.

    Raises:
        ValueError: see `fast.stack.Stack`.
        Diverged: some runs diverged, with one sentence for each; the other runs were trained to the end.
    """
    errors = []

    def end(run: Run) -> None:
        try:
            if run.error:
                raise run.error
            run.end()
            if finished and run.step == run.total:
                finished(run)
        except Diverged as error:
            errors.append(str(error))

    for run in runs:
        if run.step >= run.total:
            end(run)
    with deferred_interrupt() as interrupted:
        groups = groups_of(runs)
        if groups and groups[0].device.type == "cuda":
            for group in tqdm(groups, desc="recording", unit="stack", disable=None):
                group.record()
        limit = lambda group: group.total if max_steps is None else min(group.total, max_steps)
        work: dict = {group: (group.steps(limit(group)), 0, None) for group in groups}
        for run in runs:  # the clock starts here, after the captures
            run.began = time.perf_counter() - run.seconds
        amount = sum(len(group.runs) * (limit(group) - group.at) for group in groups)
        with tqdm(total=amount, desc=f"{len(runs)} networks", unit="step", disable=None, unit_scale=True) as bar:
            while work and not interrupted() and time.monotonic() < until:
                idle = True
                for group, (steps, done, event) in list(work.items()):
                    if event is not None and not event.query():  # poll: waiting here would hold up the other groups
                        continue
                    idle = False
                    bar.update(done * len(group.runs))
                    following = next(steps, None)
                    if following is None:
                        del work[group]
                        group.stop()
                        for run in group.runs:
                            end(run)
                    else:
                        work[group] = (steps, *following)
                if idle:
                    time.sleep(2e-4)
            for group in work:
                group.stop()
    if errors:
        raise Diverged(" ".join(errors))
