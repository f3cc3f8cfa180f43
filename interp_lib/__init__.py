"""Interpreters, discrepancies, attacks and trainers of Boopathy et al., as tested functions.

Importing this package imports nothing of Jupyter: a training run needs torch, numpy and tqdm.
"""

import importlib

__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "adapt":  # when it is asked for: it loads torch
        return importlib.import_module(".adapted", __name__).adapt
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
