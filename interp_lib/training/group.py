"""Networks that take their training steps together: one stack, recorded steps, a checkpoint each."""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch

from ..attacks.ascent import _ascend, cross_entropy, shifted
from ..fast.stack import Stack
from .loop import WATCHED
from .methods import METHODS
from .run import CHECKPOINT_SECONDS, Run, generator

BLOCK = 25  # training steps launched as one block, with their random starts drawn beforehand


class Group:
    """Runs of one method, architecture, schedule and dataset that take their steps together, from the same step on."""

    def __init__(self, runs: Sequence[Run]):
        self.runs, first = list(runs), runs[0]
        self.stack, self.schedule, self.data = Stack([run.model for run in runs]), first.schedule, first.dataset
        self.device = self.data.train.labels.device
        self.at, self.per_epoch, self.total = first.step, first.per_epoch, first.total
        size, batch = len(runs), self.schedule.batch_size
        table = lambda values, dtype=torch.float32: torch.tensor(values, dtype=dtype, device=self.device)
        self.radii = table([self.schedule.radius(step) for step in range(self.total)])
        self.rates = table([self.schedule.rate(step) for step in range(self.total)])
        self.gamma = table([run.gamma for run in runs]).repeat(batch)
        self.step = table(self.at, torch.int64).view(1)
        self.orders = torch.zeros(self.per_epoch, batch * size, dtype=torch.int64, device=self.device)
        self.noise = torch.zeros(BLOCK, size, batch, *self.data.shape, device=self.device)
        self.losses = torch.zeros(self.per_epoch, size, device=self.device)
        if position := self.at % self.per_epoch:
            self.losses[:position] = table([run.losses for run in runs]).T
        self.watched = torch.zeros(2, size, dtype=torch.float64, device=self.device)
        self.parameters = [p for run in runs for p in run.model.parameters()]
        # The learning rate is a tensor: a graph would keep the value that a Python number had at the capture.
        self.optimizer = torch.optim.Adam(self.parameters, lr=torch.zeros((), device=self.device), **self.on_cuda())
        for run in runs:
            for p in run.model.parameters():
                state = run.optimizer.state[p]
                zero = lambda p=p: torch.zeros_like(p, memory_format=torch.preserve_format)
                self.optimizer.state[p] = {
                    "step": torch.as_tensor(state.get("step", 0.0), dtype=torch.float32).to(self.device).clone(),
                    "exp_avg": state.get("exp_avg", zero()),
                    "exp_avg_sq": state.get("exp_avg_sq", zero()),
                }
                run.optimizer.state[p] = self.optimizer.state[p]  # shared, so that a checkpoint has the current state
        self.graphs: dict | None = None
        self.stream: torch.cuda.Stream | None = None
        self.saved = time.perf_counter()

    def on_cuda(self) -> dict:
        return {"capturable": True, "fused": True} if self.device.type == "cuda" else {}

    def take_step(self, attacked: bool = True) -> None:
        """Take one training step of every run, with the tables' entries for `self.step`, and advance `self.step`.

        Args:
            attacked: whether the radius is above 0.
        """
        position = self.step % self.per_epoch
        index = self.orders.index_select(0, position)[0]
        x, y = self.data.train.x(index), self.data.train.labels[index]
        problem = METHODS[self.runs[0].method](self.stack, x, y, self.gamma, dtype=self.runs[0].dtype)
        x_adv = x
        if problem.objective and attacked:
            eps = self.radii.index_select(0, self.step).expand(len(x))
            noise = self.noise.index_select(0, self.step % BLOCK)[0].transpose(0, 1).flatten(0, 1)
            # watched=False: a capture cannot read values; `read_losses` notices a run that diverged.
            x_adv = _ascend(
                problem.objective,
                x,
                eps=eps,
                alpha=self.schedule.attack_alpha,
                steps=self.schedule.attack_steps,
                start=shifted(x, eps, noise),
                watched=False,
            )
        # (S,): the gradient of the sum gives each network the gradient of its own mean.
        losses = self.stack.each(problem.loss(x_adv))
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        self.optimizer.param_groups[0]["lr"].copy_(self.rates.index_select(0, self.step)[0])
        self.optimizer.step()
        self.losses.index_copy_(0, position, losses.detach()[None])
        self.step += 1

    def watch(self) -> None:
        """Measure what `loop.watch` measures, for every run."""
        images, labels, eps = self.data.validation.x(), self.data.validation.labels, self.schedule.eps
        x, y = self.stack.repeat(images[:WATCHED]), self.stack.repeat(labels[:WATCHED])
        logits = self.stack.fold_for_training()[1].logits
        x_adv = _ascend(cross_entropy(logits, y), x, eps=eps, alpha=eps / 4, steps=10, watched=False)
        every = self.stack.repeat(images), self.stack.repeat(labels)
        with torch.no_grad():
            for row, (inputs, true) in zip(self.watched, (every, (x_adv, y)), strict=True):
                row.copy_(self.stack.each((logits(inputs).argmax(1) == true).double()))

    def record(self) -> None:
        """Capture training steps and validation as CUDA graphs; the state is the same afterwards."""
        self.stream = torch.cuda.Stream(self.device)
        state = [*self.parameters, self.step, self.losses, self.optimizer.param_groups[0]["lr"]]
        state += [tensor for p in self.parameters for tensor in self.optimizer.state[p].values()]
        self.load_order()
        before = [tensor.detach().clone() for tensor in state]
        torch.cuda.synchronize(self.device)
        with torch.cuda.stream(self.stream):  # a warm-up: libraries choose and load their kernels
            self.take_step()
            self.watch()
        graphs = {}
        # Two graphs for a step, since a graph cannot branch on whether the radius is 0.
        for name in ("take_step", "take_first_step", "watch"):
            graphs[name] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graphs[name], stream=self.stream):
                self.do(name)
        self.graphs = graphs
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
        torch.cuda.synchronize(self.device)

    def take_first_step(self) -> None:
        """Take a step before the ramp, where the radius is 0 and x' = x."""
        self.take_step(attacked=False)

    def do(self, name: str) -> None:
        self.graphs[name].replay() if self.graphs else getattr(self, name)()

    def load_order(self) -> None:
        """Load the image indices of the current epoch for all S runs: image i of a batch belongs to run i mod S."""
        orders = torch.stack([run.order(self.at // self.per_epoch) for run in self.runs], 2)
        self.orders.copy_(orders.flatten(1))

    def draw_noise(self, first: int, last: int) -> None:
        """Draw the noise for the random starts of steps first .. last - 1, all of one block."""
        # Outside the graphs: a replay runs no Python, so it could not seed a generator for its step.
        for step in range(first, last):
            for run, noise in zip(self.runs, self.noise[step % BLOCK], strict=True):
                noise.uniform_(generator=generator(run.seed, "start", step, self.device))

    def steps(self, stop: int) -> Iterator[tuple[int, torch.cuda.Event | None]]:
        """Take steps up to `stop`, in blocks, and yield each block's number of steps and the event of its end.

        On a GPU a block is launched while the block before it runs. On a CPU the event is None.
        """
        fresh, before = True, None
        while self.at < stop:
            end_of_epoch = (self.at // self.per_epoch + 1) * self.per_epoch
            last = min((self.at // BLOCK + 1) * BLOCK, end_of_epoch, stop)
            with self.on_stream():
                if fresh:
                    self.load_order()
                radii = [self.schedule.radius(step) for step in range(self.at, last)]
                if any(radii):
                    self.draw_noise(self.at, last)
                for eps in radii:
                    self.do("take_step" if eps else "take_first_step")
                if fresh := last == end_of_epoch:
                    self.do("watch")
                event = self.event()
            done, self.at = last - self.at, last
            if before:
                yield before
            before = done, event
            if fresh:
                yield before
                before = None
                self.end_epoch()
        if before:
            yield before

    def on_stream(self):
        return torch.cuda.stream(self.stream) if self.stream else nullcontext()

    def event(self) -> torch.cuda.Event | None:
        if self.stream is None:
            return None
        event = torch.cuda.Event()
        event.record(self.stream)
        return event

    def wait(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()

    def read_losses(self) -> None:
        """Give every run its losses of the epoch so far; mark diverged runs, whose checkpoints stay as they are."""
        position = self.at % self.per_epoch or self.per_epoch
        for run, losses in zip(self.runs, self.losses[:position].T.tolist(), strict=True):
            # abs(NaN) < inf is False, so this finds NaN as well.
            wrong = next((k for k, loss in enumerate(losses) if not abs(loss) < float("inf")), None)
            if wrong is not None and not run.error:
                run.error = run.diverged(losses[wrong], self.at - position + wrong)
            run.step, run.losses = self.at, losses

    def end_epoch(self) -> None:
        with self.on_stream():  # the best weights are copied before the next step changes them
            self.read_losses()
            for run, (accuracy, robust) in zip(self.runs, self.watched.T.tolist(), strict=True):
                if not run.error:
                    run.end_epoch({"validation_accuracy": accuracy, "validation_robust": robust})
        if time.perf_counter() - self.saved > CHECKPOINT_SECONDS:
            self.save()

    def save(self) -> None:
        with self.on_stream():
            for run in self.runs:
                if not run.error:
                    run.save()
        self.saved = time.perf_counter()

    def stop(self) -> None:
        """Wait for all launched steps, and write their losses, rows and checkpoints."""
        self.wait()
        if self.at > self.runs[0].step:
            if self.at % self.per_epoch:
                with self.on_stream():
                    self.read_losses()
            else:  # the epoch was validated but its row is not written yet
                self.end_epoch()
        self.save()
