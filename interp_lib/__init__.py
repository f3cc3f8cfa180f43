"""Interpreters, discrepancies, attacks and trainers of Boopathy et al., as tested functions.

Importing this package imports nothing of Jupyter: a training run needs torch, numpy and tqdm.
"""

__version__ = "0.1.0"
