"""Check that a network has a CAM: its logits are a linear layer of the mean over pixels of its feature maps."""

import torch.nn.functional as F
from torch import Tensor, nn

from .architectures import GlobalPoolNetwork
from .proof import Function, hooked, proven

_PLAN = GlobalPoolNetwork.forward, GlobalPoolNetwork.features


def linear_parts(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weight (classes, K) and bias (classes,), or None, of a network's linear layer."""
    return model.classifier.weight, model.classifier.bias


def _pooled(model: nn.Module) -> Function:
    """Return the logits that the contract prescribes: the linear layer of the mean over pixels of `features`."""
    return lambda x: F.linear(model.features(x).mean((2, 3)), *linear_parts(model))


def _has_parts(model: nn.Module) -> bool:
    return callable(getattr(model, "features", None)) and isinstance(getattr(model, "classifier", None), nn.Linear)


def keeps_contract(model: nn.Module, shape: tuple[int, ...] | None = None) -> bool:
    """Return whether model(x) is the linear layer `classifier` of the pooled `features`, so that it has a CAM."""
    return _has_parts(model) and (_on_plan(model) or proven(model, _pooled, shape=shape, settings=False, untried=True))


def _on_plan(model: nn.Module) -> bool:
    """Return whether the network's own code guarantees the contract, so that no trial is needed."""
    # An instance attribute `forward` or `features`, or a hook, would override what the class says.
    whole = nn.modules.module
    return (
        isinstance(model, GlobalPoolNetwork)
        and (type(model).forward, type(model).features) == _PLAN
        and type(model.classifier) is nn.Linear
        and not {"forward", "features"} & (vars(model).keys() | vars(model.classifier).keys())
        and not (hooked(model) or hooked(model.classifier))
        and not (whole._global_forward_hooks or whole._global_forward_pre_hooks)
    )


def check_contract(model: nn.Module, shape: tuple[int, ...] | None = None) -> None:
    """Refuse a network without a CAM, see `keeps_contract`.

    Args:
        shape: (C, H, W) of its images. Default: `model.input_shape`.

    Raises:
        TypeError: the network has no `features` or no linear layer `classifier`.
        ValueError: the network has both, but its forward computes something else.
    """
    name = getattr(model, "name", None) or getattr(type(model), "__name__", "the model")
    advice = (
        "Write model = interp_lib.adapt(model); where that finds nothing, gradcam(..., head=...) and maps of pixels "
        "are left"
    )
    if not _has_parts(model):
        raise TypeError(
            f"a CAM needs feature maps `features(x)`, their mean over pixels and a linear layer `classifier`, which "
            f"{name if isinstance(model, nn.Module) else 'a plain function'} does not have. {advice}."
        )
    if not keeps_contract(model, shape):
        raise ValueError(
            f"{name}(x) is not `classifier` of the mean over pixels of `features`, as it would be with a CAM: "
            f"something comes before, between or after them. {advice}."
        )
