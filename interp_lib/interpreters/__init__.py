"""Interpreters L(x, c): where in x a network finds its evidence for class c.

All share one contract: `L(model, x, classes, *, create_graph=False) -> (N, k, h, w)`, classes int64 (N, k), with
k = 1 for the true class, 2 for (t, t') and the number of classes for all. Maps are raw and signed; `upsample` and
`normalise_for_display` prepare them for display. Maps of `sensitivity` and `integration` have one more axis, for
colour, (N, k, C, H, W); `sum_colours` removes it.

With `create_graph=True` a map can be differentiated with respect to x and to the weights, and autograd gives the
derivative of the map itself. Without it, a map that is computed from gradients carries no graph, because its graph
would be incomplete; CAM and Repr need no gradient and always keep their graph. An interpreter leaves no trace in the
network: no changed flags, no `.grad`, no hooks, and the same mode (training or evaluation) as before.

`INTERPRETERS` is the table of interpreters: the properties of each, and how attacks fold it with a network;
`completeness_gap` measures how far a map is from complete.
"""

from ..faces import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "class_activation_maps": "cam gradcam gradcam_pp gradcam_pp_release representation",
        "integration": "integrated_gradients integrated_gradients_release",
        "masking": "rise",
        "registry": "INTERPRETERS Interpreter completeness_gap normalise_for_display sum_colours upsample",
        "sensitivity": "deconvolution guided_backpropagation input_times_gradient smoothgrad vanilla_gradient",
    },
)
