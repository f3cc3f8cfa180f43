"""Build the file name of a network trained here from the settings that identify it."""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..paper import GAMMA

NETWORKS = Path("networks")


@dataclass(frozen=True)
class NetworkName:
    """The settings that identify a trained network; `slug` is its file name without the suffix."""

    dataset: str
    model: str
    method: str
    seed: int
    schedule: str
    gamma: float = GAMMA

    def __post_init__(self):
        for key in ("dataset", "model", "method", "schedule"):
            if not re.fullmatch(r"[A-Za-z0-9_-]+", str(getattr(self, key))):
                raise ValueError(f"{key} must be a name of letters, digits and hyphens; got {getattr(self, key)!r}.")
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be a whole number in 0 .. 2**63 - 1; got {self.seed!r}.")
        if not (isinstance(self.gamma, int | float) and 0 <= self.gamma < math.inf):
            raise ValueError(f"gamma must be a finite number >= 0; got {self.gamma!r}.")

    @property
    def slug(self) -> str:
        gamma = "" if self.gamma == GAMMA else f"-g{self.gamma:g}"
        return f"{self.dataset}-{self.model}-{self.method.lower()}-s{self.seed}-{self.schedule}{gamma}"

    def path(self, folder: str | os.PathLike = NETWORKS) -> Path:
        return Path(folder) / f"{self.slug}.safetensors"
