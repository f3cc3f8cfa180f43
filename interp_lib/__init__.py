"""Interpreters, discrepancies, attacks and trainers of Boopathy et al., as tested functions.

`dir(interp_lib)` lists what most people come for; each name is loaded when it is asked for, so that the import itself
loads neither PyTorch nor anything of Jupyter.
"""

import importlib

__version__ = "0.1.0"

# Module -> the names that are asked for here. A name must not be that of a module beside this file.
_FACE = {
    "adapted": "adapt",
    "attacks.aai": "aai",
    "attacks.isa": "isa isa_over_eps",
    "attacks.minimal": "minimal_eps",
    "attacks.pgd": "pgd",
    "discrepancy": "kendall_tau normalised_discrepancy proposition1_bound target_free_discrepancy "
    "two_class_discrepancy",
    "interpreters": "cam gradcam gradcam_pp representation",
    "models": "Pool Small WResnet build",
    "schedule": "Schedule",
    "sensitivity": "deconvolution guided_backpropagation integrated_gradients rise smoothgrad vanilla_gradient",
    "together": "fit_together",
    "training": "fit",
}
_MODULE_OF = {name: module for module, names in _FACE.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}.")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
