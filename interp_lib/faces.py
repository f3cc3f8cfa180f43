"""Lazy exports of a package: a name is imported when it is first used, so that importing the package stays fast."""

import importlib
from collections.abc import Callable, Mapping


def lazy(package: str, names: Mapping[str, str], modules: str = "") -> tuple[Callable, Callable, list[str]]:
    """Make `__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: the package's `__name__`.
        names: module -> the names that the package exports from it, in one string separated by spaces. No name may be
            the name of a module in the package: importing the module would replace the exported object.
        modules: modules that are exported as a whole, in one string separated by spaces.

    Raises:
        AttributeError: raised by `__getattr__` for an unknown name; lists the known ones.
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
