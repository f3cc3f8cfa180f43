"""Read profiles, which choose data and networks of the book's live experiments: `profiles/NAME.yml`, plain scalars."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ..datasets import DATASETS
from ..models.names import NetworkName
from ..paper import ARCHITECTURE_TITLES, GAMMA, METHODS
from ..places import home, shipped
from ..places import project_root as project_root  # pages call profiles.project_root()
from ..reading import FileError, read_yaml
from ..schedule import PRECISIONS, Schedule

if TYPE_CHECKING:  # PyTorch takes seconds to import, and a command that only reads profiles does not need it
    from ..data import Dataset
    from ..models.architectures import GlobalPoolNetwork


class ProfileError(FileError):
    """A profile with an unknown key, a missing key or a value of the wrong kind."""


@dataclass(frozen=True)
class Profile:
    """The data and networks of the book's live experiments.

    Attributes:
        name: name of the file, without .yml.
        dataset, model: dataset and architecture of the experiments.
        networks: 'ours', which the build trains under _build/networks, or 'released'.
        methods: training methods, as named in the rows of the paper's tables, separated by commas.
        seeds: number of networks that the build trains per method, with seeds 0 .. seeds - 1.
        schedule: name of the training schedule.
        n: number of images in the evaluation subset.
    """

    name: str
    dataset: str
    model: str
    networks: str
    methods: str
    seeds: int
    schedule: str
    n: int

    @property
    def method_names(self) -> list[str]:
        return [method.strip() for method in self.methods.split(",")]

    def trained(self) -> list[NetworkName]:
        """List the networks that this profile needs trained; an empty list if it uses the released networks."""
        return [
            NetworkName(self.dataset, self.model, method, seed, self.schedule)
            for method in self.method_names
            for seed in range(self.seeds)
            if self.networks == "ours"
        ]

    def load_network(self, method: str, seed: int = 0) -> "GlobalPoolNetwork":
        """Load a network of this profile, in evaluation mode.

        Raises:
            FileNotFoundError: the network is missing; the message says how to train it or get the released networks.
        """
        from ..models import released, trained

        if self.networks == "released":
            return released.read_network(released.find(self.dataset, self.model, method))
        name = NetworkName(self.dataset, self.model, method, seed, self.schedule)
        path = name.path(home() / "_build/networks")
        if not path.exists():
            raise FileNotFoundError(
                f"{name.slug} is not trained yet. Run: python -m interp_lib train --profile {self.name}"
            )
        return trained.load(path)[0]

    def load_data(self) -> "Dataset":
        from .. import data

        return data.load(self.dataset)


def load(name: str = "digits") -> Profile:
    """Load a profile by name.

    Raises:
        ProfileError: an unknown name, an unknown or a missing key, or an invalid value.
    """
    folder = shipped("profiles")
    known: Collection[str] = sorted(path.stem for path in folder.glob("*.yml"))
    if name not in known:
        raise ProfileError(f"unknown profile {name!r}; known are {', '.join(known)}.")
    try:
        content = read_yaml(folder / f"{name}.yml")
    except FileError as error:
        raise ProfileError(error) from None
    expected: dict[str, Any] = {f.name: f.type for f in fields(Profile) if f.name != "name"}
    if not isinstance(content, dict) or set(content) != set(expected):
        wrong = sorted(map(str, set(content if isinstance(content, dict) else ()) ^ set(expected)))
        raise ProfileError(f"profiles/{name}.yml must have the keys {', '.join(expected)}; look at {', '.join(wrong)}.")
    for key, kind in expected.items():
        if type(content[key]) is not kind:
            raise ProfileError(f"profiles/{name}.yml: {key} must be of type {kind.__name__}; got {content[key]!r}.")
    profile = Profile(name=name, **content)
    if profile.networks not in ("ours", "released"):
        raise ProfileError(f"profiles/{name}.yml: networks must be 'ours' or 'released'; got {profile.networks!r}.")
    for key, known in (("dataset", DATASETS), ("model", ARCHITECTURE_TITLES)):
        if content[key] not in known:
            raise ProfileError(f"profiles/{name}.yml: {key} must be one of {', '.join(known)}; got {content[key]!r}.")
    if unknown := [method for method in profile.method_names if method not in METHODS]:
        raise ProfileError(f"profiles/{name}.yml: no such method: {', '.join(unknown)}.")
    if len(set(profile.method_names)) < len(profile.method_names):
        raise ProfileError(f"profiles/{name}.yml: methods names one twice: {profile.methods}.")
    for key, least in (("n", 1), ("seeds", int(profile.networks == "ours"))):
        if content[key] < least:
            raise ProfileError(f"profiles/{name}.yml: {key} must be at least {least}; got {content[key]}.")
    try:
        Schedule.load(profile.schedule, profile.dataset if profile.networks == "ours" else None)
    except ValueError as error:
        raise ProfileError(f"profiles/{name}.yml: {error}") from None
    return profile


def methods_named(text: str) -> list[str]:
    """Return the proper names of methods from a list with commas, where they may be in lower case, as in file names.

    PyTorch, which `training.methods` needs, is loaded only if a name is in none of the paper's tables.

    Raises:
        ValueError: an unknown name.
    """
    asked, named = [method.strip() for method in text.split(",")], {method.lower(): method for method in METHODS}
    if any(method.lower() not in named for method in asked):
        from ..training.methods import METHODS as every

        named = {method.lower(): method for method in every}
    for method in asked:
        if method.lower() not in named:
            raise ValueError(f"unknown method {method!r}; known are {', '.join(named.values())}.")
    return [named[method.lower()] for method in asked]


# Keys of `snakemake grid --config` and their defaults: the grid's own keys, and options of the command `train`.
GRID = {
    "dataset": "mnist",
    "model": "small",
    "schedule": "quick",
    "methods": ",".join(METHODS),
    "seeds": "1",
    "gammas": "",
    "method": None,
    "seed": None,
    "gamma": None,
    "folder": "networks",
    "precision": "float32",
    "gpus": "0",
    "profile": "digits",
}


def with_defaults(config: Mapping[str, object]) -> dict[str, object]:
    """Return Snakemake's config with the defaults of `GRID`, also for `gammas=`, which Snakemake reads as None."""
    return {**GRID, **{key: value for key, value in config.items() if value is not None}}


def grid(config: Mapping[str, object]) -> list[NetworkName]:
    """List the networks of a grid: all methods with all seeds, and further gammas of the methods that have a gamma.

    Args:
        config: Snakemake's config. The grid's own keys are `methods`, `seeds` (a number of seeds, from 0) and `gammas`
            (of Int, in addition to the usual gamma); `method`, `seed` and `gamma` are lists with commas, like the
            options of `train`.

    Raises:
        ValueError: an unknown key, or an invalid method, seed, gamma, dataset, model or schedule.
    """
    if unknown := sorted(set(config) - set(GRID)):
        raise ValueError(f"--config has no key {', '.join(unknown)}; a grid takes {', '.join(GRID)}.")
    for one, several in (("method", "methods"), ("seed", "seeds"), ("gamma", "gammas")):
        if {one, several} <= set(config):
            raise ValueError(f"--config takes {one} (a list) or {several}, not both.")
    wanted: dict[str, Any] = {
        key: value if value is None else str(value) for key, value in with_defaults(config).items()
    }

    def numbers(key: str, kind: type) -> list:
        try:
            return [kind(part) for part in wanted[key].split(",") if part.strip()]
        except ValueError:
            what = "whole numbers" if kind is int else "numbers"
            raise ValueError(f"--config {key} must be {what} with commas between them; got {wanted[key]!r}.") from None

    methods = methods_named(wanted["method"] or wanted["methods"])
    for key, known in (("dataset", DATASETS), ("model", ARCHITECTURE_TITLES), ("precision", PRECISIONS)):
        if wanted[key] not in known:
            raise ValueError(f"--config {key} must be one of {', '.join(known)}; got {wanted[key]!r}.")
    Schedule.load(wanted["schedule"], wanted["dataset"])
    seeds: Iterable[int]
    if wanted["seed"] is not None:
        seeds = numbers("seed", int)
    else:
        (count,) = numbers("seeds", int) or [1]
        seeds = range(count)
    if wanted["gamma"] is not None:
        gammas = numbers("gamma", float)
        pairs = [(m, g) for m in methods for g in (gammas if m.startswith("Int") else [GAMMA])]
    else:
        pairs = [*((m, GAMMA) for m in methods), *(("Int", g) for g in numbers("gammas", float))]
    name = lambda method, gamma, seed: NetworkName(
        wanted["dataset"], wanted["model"], method, seed, wanted["schedule"], gamma
    )
    return [name(method, gamma, seed) for seed in seeds for method, gamma in pairs]
