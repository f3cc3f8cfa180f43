"""Training schedules: epochs, learning rate, inner maximisation; one YAML file each, checked without PyTorch."""

from dataclasses import dataclass, fields
from importlib import resources
from typing import overload

from .reading import FileError, read_yaml
from .values import check_number, check_whole

PRECISIONS = ("float32", "bfloat16")  # of the convolutions; weights, maps and logits are always float32


@dataclass(frozen=True)
class Schedule:
    """The numbers of a training schedule; `schedules/NAME.yml` has one section of them for each dataset.

    Attributes:
        epochs, batch_size, learning_rate: settings of Adam; the last partial batch of an epoch is dropped.
        eps: radius of the inner maximisation after the ramp, in the unit of the pixels.
        ramp_start, ramp_end: training steps; the radius is 0 before ramp_start, eps after ramp_end, linear in between.
        attack_steps, attack_alpha: number of steps and step size of the inner maximisation, which begins at a uniform
            random start; attack_alpha in the unit of the pixels.
        decay: training steps at which the learning rate is divided by 10.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    eps: float
    ramp_start: int
    ramp_end: int
    attack_steps: int
    attack_alpha: float
    decay: tuple[int, ...] = ()

    def __post_init__(self):
        """Refuse values that no training can use, such as a ramp that ends before it starts."""
        for key in ("epochs", "batch_size"):
            check_whole(getattr(self, key), key, 1)
        for key in ("ramp_start", "ramp_end", "attack_steps"):
            check_whole(getattr(self, key), key)
        check_number(self.learning_rate, "learning_rate", 0, above=True)
        check_number(self.eps, "eps", 0, 1)
        check_number(self.attack_alpha, "attack_alpha", 0)
        if self.ramp_end < self.ramp_start:
            raise ValueError(f"ramp_end must be at least ramp_start, {self.ramp_start}; got {self.ramp_end}.")
        if not isinstance(self.decay, tuple | list):
            raise TypeError(f"decay must be a list of training steps; got {self.decay!r:.80}.")
        for step in self.decay:
            check_whole(step, "decay")

    @overload
    @classmethod
    def load(cls, name: str, dataset: str) -> "Schedule": ...

    @overload
    @classmethod
    def load(cls, name: str, dataset: None) -> None: ...

    @classmethod
    def load(cls, name: str, dataset: str | None) -> "Schedule | None":
        """Load a schedule of the library by name, for a dataset.

        Args:
            name: name of a file in `schedules/`, without `.yml`.
            dataset: name of a dataset; None only checks that the schedule exists, and returns None.

        Raises:
            ValueError: an unknown name, a file that is not YAML of plain values, a dataset that the schedule does not
                cover, an unknown or missing key, or an impossible value.
        """
        folder = resources.files("interp_lib") / "schedules"
        known = sorted(p.name.removesuffix(".yml") for p in folder.iterdir() if p.name.endswith(".yml"))
        if name not in known:
            raise ValueError(f"unknown schedule {name!r}; known are {', '.join(known)}.")
        if dataset is None:
            return None
        with resources.as_file(folder / f"{name}.yml") as path:
            sections = read_yaml(path)
        if not isinstance(sections, dict) or dataset not in sections:
            covered = ", ".join(map(str, sections)) if isinstance(sections, dict) else "nothing"
            raise FileError(f"schedule {name!r} is for {covered}, not for {dataset!r}.")
        content, where = sections[dataset], f"schedules/{name}.yml, {dataset}"
        expected = {f.name: f.type for f in fields(cls)}
        keys = set(content) if isinstance(content, dict) else set()
        if wrong := sorted(map(str, keys ^ set(expected))):
            raise FileError(f"{where} must have the keys {', '.join(expected)}; see {', '.join(wrong)}.")

        def number(key: str, value, kind):
            # float() also takes text: PyYAML reads 1e-3, which has no dot, as a string.
            try:
                converted = kind(float(value))
                if converted == float(value) and not isinstance(value, bool):
                    return converted
            except (TypeError, ValueError, OverflowError):
                pass
            what = "a whole number" if kind is int else "a number"
            raise FileError(f"{where}: {key} must be {what}; got {value!r}.")

        decay = content.pop("decay")
        if not isinstance(decay, list):
            raise FileError(f"{where}: decay must be a list of training steps; got {decay!r}.")
        numbers = {key: number(key, value, expected[key]) for key, value in content.items()}
        try:
            return cls(**numbers, decay=tuple(number("decay", step, int) for step in decay))
        except FileError:
            raise
        except ValueError as error:
            raise FileError(f"{where}: {error}") from None

    def radius(self, step: int) -> float:
        """Return the radius of the inner maximisation at a training step, counted from 0."""
        # max(..., 1): where the ramp has no length the radius jumps to eps one step after ramp_start.
        return self.eps * min(max((step - self.ramp_start) / max(self.ramp_end - self.ramp_start, 1), 0.0), 1.0)

    def rate(self, step: int) -> float:
        """Return the learning rate at a training step, counted from 0: divided by 10 from each step in `decay` on."""
        return self.learning_rate * 0.1 ** sum(step >= at for at in self.decay)
