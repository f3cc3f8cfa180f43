"""The face of a package: names that are loaded when they are asked for, so that an import stays light."""

import importlib
from collections.abc import Callable, Mapping


def lazy(package: str, names: Mapping[str, str], modules: str = "") -> tuple[Callable, Callable, list[str]]:
    """Make `__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: its `__name__`.
        names: module -> the names that it gives to the face, in one string. No name may be that of a module in the
            package: importing that module would take its place.
        modules: modules that are served whole, in one string.
    """
    module_of = {name: module for module, those in names.items() for name in those.split()}
    everything = sorted([*module_of, *modules.split()])

    def get(name: str):
        if name in modules.split():
            return importlib.import_module(f".{name}", package)
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(everything)}.")
        return getattr(importlib.import_module(f".{module_of[name]}", package), name)

    return get, lambda: everything, everything
