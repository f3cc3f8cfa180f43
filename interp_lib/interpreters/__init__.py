"""Interpreters L(x, c): where in x a network finds its evidence for class c.

One contract: `L(model, x, classes, *, create_graph=False) -> (N, k, h, w)`, classes int64 (N, k); k = 1 for the true
class, 2 for (t, t'), all for all. Maps are raw and signed; `upsample` and `normalise_for_display` are for the eye.
Maps of pixels (`sensitivity`, `integration`, `masking`) have an axis of colours more, (N, k, C, H, W); `sum_colours`
removes it.

With `create_graph=True` a map can be differentiated, with respect to x and to the weights, and the derivative is
that of the map. Without it, maps that take a gradient to make carry no graph, rather than one with a part missing;
CAM and Repr are functions like any other and keep theirs. Nothing else is left behind: no flags, no `.grad`, no
hooks, and the network stays in the mode that it is in.

`INTERPRETERS` says of each whether it is complete, `completeness_gap` by how much it is not.
"""

from ..faces import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "class_activation_maps": "cam gradcam gradcam_pp gradcam_pp_release representation",
        "integration": "integrated_gradients integrated_gradients_release",
        "masking": "rise",
        "registry": "INTERPRETERS Interpreter completeness_gap normalise_for_display sum_colours upsample",
        "sensitivity": "deconvolution guided_backpropagation smoothgrad vanilla_gradient",
    },
)
