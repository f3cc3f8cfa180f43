"""Store maps and curves of the paper's figures in a record, and read them back."""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from . import records

# Largest stored side, in pixels, of each figure's images and of maps; larger ones are averaged over blocks.
IMAGE_SIDE, MAP_SIDE = {"figure1": 112, "figure2": 56}, 56


@dataclass
class Explained:
    """One version of an image, with a network's prediction and maps.

    Attributes:
        image: (C, H, W) in [0, 1].
        predicted: the predicted class.
        maps: interpreter -> maps of k classes, (k, h, w).
        tau: interpreter -> Kendall's tau-b of each map with the natural image's; empty for the natural image.
    """

    image: Tensor
    predicted: int
    maps: dict[str, Tensor]
    tau: dict[str, list[float]] = field(default_factory=dict)


# Records -----------------------------------------------------------------------------------------------------------
def quantised(values: Tensor, side: int) -> dict:
    """Encode values (k, h, w) as text: 8 bits each, deflated, in base 64; with shape and largest absolute value.

    Where h or w exceeds `side`, the values are averaged over blocks first; `full` keeps the size (h, w) before.
    """
    full = list(values.shape[-2:])
    if max(full) > side:
        values = F.avg_pool2d(values[None], -(-max(full) // side))[0]
    largest = float(values.abs().max()) or 1.0  # all values may be 0
    bytes_ = (values.float() / largest * 127).round().to(torch.int8).cpu().contiguous().numpy().tobytes()
    text = b64encode(zlib.compress(bytes_, 9)).decode()
    return {"shape": list(values.shape), "full": full, "largest": largest, "values": text}


def dequantised(row: Mapping) -> Tensor:
    """Decode the values of `quantised`, in steps of 1/127 of the largest absolute value."""
    # bytearray, because torch.frombuffer warns about a buffer that it cannot write to.
    raw = torch.frombuffer(bytearray(zlib.decompress(b64decode(row["values"]))), dtype=torch.int8)
    return raw.float().reshape(row["shape"]) * (row["largest"] / 127)


def version_rows(versions: Mapping[str, Explained], image_side: int) -> list[dict]:
    """Convert versions to rows of a record: one row for each image, and one for each interpreter's maps of it."""
    rows = []
    for name, version in versions.items():
        head = {"version": name, "predicted": version.predicted}
        rows.append({**head, "interpreter": None, "tau": None, **quantised(version.image, image_side)})
        for key, maps in version.maps.items():
            rows.append({**head, "interpreter": key, "tau": version.tau.get(key), **quantised(maps, MAP_SIDE)})
    return rows


def read_versions(record: records.Record) -> dict[str, Explained]:
    """Read the versions from a record: Figure 1, or Figure 2 (c)."""
    versions: dict[str, Explained] = {}
    for row in record.rows:
        if "version" not in row:
            continue
        if row["interpreter"] is None:
            versions[row["version"]] = Explained(dequantised(row).clamp(0, 1), row["predicted"], {})
        else:
            versions[row["version"]].maps[row["interpreter"]] = dequantised(row)
            if row["tau"]:
                versions[row["version"]].tau[row["interpreter"]] = row["tau"]
    return versions


def read_curves(record: records.Record) -> tuple[list[dict], float]:
    """Read the rows of Figure 2 (a) and (b) and the bound of Proposition 1 from a record; see `figures.Sneaking`."""
    bound = next(row["bound"] for row in record.rows if "bound" in row)
    return [row for row in record.rows if "attack" in row], bound
