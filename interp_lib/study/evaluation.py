"""The paper's evaluation as data: on what each table rests, at which perturbation sizes and after how many steps."""

from ..datasets import TITLES
from ..paper import ARCHITECTURE_TITLES, STATEMENTS, eps_of

MNIST_EPS = (0, 0.05, 0.1, 0.2, 0.3)

CIFAR_EPS = (0, 2 / 255, 4 / 255, 6 / 255, 8 / 255)

# (dataset, architecture) -> the eps of every table; past the paper's radius where section 7 of the book asks for it.
EPS = {
    ("mnist", "small"): (*MNIST_EPS, 0.35, 0.4),
    ("mnist", "pool"): MNIST_EPS,
    ("cifar10", "small"): CIFAR_EPS,
    ("cifar10", "wresnet"): (*CIFAR_EPS, 9 / 255, 10 / 255),
    ("digits", "small"): (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    ("restricted_imagenet", "wresnet"): (0,),
}

MAIN = (("mnist", "small"), ("cifar10", "wresnet"))  # Tables 2, 3 and 4

APPENDIX = (("mnist", "pool"), ("cifar10", "small"))  # Tables A1 to A5

TABLE1 = (("mnist", "small"), ("cifar10", "small"), ("restricted_imagenet", "wresnet"))

STEPS = (1, 10, 100, 200)

ALPHA = 0.01  # step size of PGD and AAI, whatever eps is

IMAGES = 200  # of every table but Table 1

ISA_IMAGES = 100  # of Table 1

TRAINING_EPS = {"mnist": 0.3, "cifar10": 8 / 255, "digits": 0.15}


def perturbation_sizes(dataset: str, model: str) -> list[float]:
    """Return 0 and every eps that a statement about a network mentions, ascending, in the unit of the pixels.

    Args:
        dataset, model: as in `data.load` and `models.build`.
    """
    spoken = STATEMENTS[f"{TITLES[dataset]} {ARCHITECTURE_TITLES[model]}"]
    return sorted({0.0, *(eps_of(level) for statement in spoken for level in statement.levels)})
