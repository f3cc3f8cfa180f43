"""The attacks of Kang et al. (2019), which change an image otherwise than pixel by pixel in a ball; Table 5."""

from ...faces import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "corruption": "Corruption attack",
        "elastic_flow": "elastic elastic_corruption",
        "fog_map": "fog fog_corruption",
        "gabor_noise": "gabor gabor_corruption",
        "jpeg_coefficients": "Codec jpeg jpeg_corruption",
        "snow_flakes": "snow snow_corruption",
    },
)
