"""Training from scratch: the methods of the paper's tables, and one training loop for all of them."""

from ..faces import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "loop": "FIT_SETTINGS fit inner_maximum watch",
        "methods": "METHODS Problem",
        "run": "Diverged Run",
        "together": "fit_together",
    },
)
