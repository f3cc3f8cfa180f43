"""The paper's networks: architectures, the authors' released ones, ours, and what a network says of images."""

import importlib

_FACE = {
    "architectures": "ARCHITECTURES Block GlobalPoolNetwork Pool SameConv2d Small WResnet build same_conv2d "
    "same_padding weight_shapes",
    "predict": "all_finite classified_right count_correct evaluating fingerprint predictions",
}
_MODULE_OF = {name: module for module, names in _FACE.items() for name in names.split()}
__all__ = sorted([*_MODULE_OF, "released", "trained"])


def __getattr__(name: str):
    if name in ("released", "trained"):
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}.")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
