"""The paper's networks: architectures, the authors' released networks, networks trained here, and predictions."""

from ..faces import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "adapted": "adapt",
        "architectures": "ARCHITECTURES Block GlobalPoolNetwork Pool SameConv2d Small WResnet build same_conv2d "
        "same_padding weight_shapes",
        "bounds": "Ball map_rows",
        "outside": "NORMALISATIONS class_names read_weights torchvision_network",
        "predict": "all_finite classified_right count_correct evaluating fingerprint predictions",
    },
    modules="released trained",
)
