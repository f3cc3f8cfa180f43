"""Read Restricted ImageNet: photographs in folders, one folder a class, decoded and resized."""

import io
import math
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .data_files import Arrays, _import, _wrong
from .datasets import DATASETS
from .reading import FileError, read_bytes

# First and last ImageNet class index of every class of Restricted ImageNet, in their order.
IMAGENET_RANGES = (
    *((151, 268), (281, 285), (30, 32), (33, 37), (80, 100)),
    *((365, 382), (389, 397), (118, 121), (300, 319)),
)

LARGEST_PHOTOGRAPH = 2**26  # bytes of a file and pixels of its image; photographs are decoded one by one


def read_restricted_imagenet(folder: Path) -> tuple[Arrays, Arrays, str]:
    """Read val/<k>_<class>/ (a sample) or ImageNet's val/<wnid>/, in sorted order; name the copy that it was."""
    names = [f"{k}_{c}" for k, c in enumerate(DATASETS["restricted_imagenet"].classes)]
    expected = f"the folders {names[0]} .. {names[-1]}, or ImageNet's 1000, n01440764 .. n15075141"
    advice = "Point --data-dir or INTERP_DATA to the validation images of ImageNet 2012 (image-net.org)."
    roots = (folder / "restricted_imagenet" / "val", folder / "val")
    root = next((root for root in roots if root.is_dir()), None)
    if root is None:
        raise _wrong(roots[0], expected, f"nothing, there or in {roots[1]}", advice)
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    labelled: Iterable[tuple[int, str]]
    if folders == names:
        copy, labelled = "sample", enumerate(names)
    elif len(folders) == 1000 and all(re.fullmatch(r"n\d{8}", entry) for entry in folders):
        copy = "unverified copy"
        labelled = ((k, folders[i]) for k, (a, b) in enumerate(IMAGENET_RANGES) for i in range(a, b + 1))
    else:
        odd = ", ".join(sorted(set(names) ^ set(folders))[:9])
        raise _wrong(root, expected, f"{len(folders)} folders, missing or odd: {odd}", advice)
    paths, labels = [], []
    for k, entry in labelled:
        files = [p for p in sorted((root / entry).iterdir()) if re.fullmatch(r"[^.].*\.jpe?g", p.name, re.I)]
        if not files:
            raise _wrong(root / entry, "images *.jpg or *.JPEG", "none", "Add some: a whole class is missing.")
        paths += files
        labels += [k] * len(files)
    images, labels = _decode(paths), torch.tensor(labels)
    return (images[:0], labels[:0]), (images, labels), copy


def _decode(paths: list[Path]) -> Tensor:
    """Decode images to uint8 (N, 3, 224, 224), resized by PIL's bilinear filter, which averages when it shrinks."""
    from tqdm import tqdm

    pil = _import("PIL.Image", "pillow", "the dataset restricted_imagenet")
    images = np.empty((len(paths), 224, 224, 3), np.uint8)
    for i, path in enumerate(tqdm(paths, "decoding", unit=" images", leave=False, delay=1)):
        try:
            # Only the two formats of ImageNet: Pillow may start a program for others, as Ghostscript for EPS.
            content = io.BytesIO(read_bytes(path, LARGEST_PHOTOGRAPH))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", pil.DecompressionBombWarning)  # checked below
                image = pil.open(content, formats=("JPEG", "PNG"))
            if math.prod(image.size) > LARGEST_PHOTOGRAPH:
                raise FileError(f"{image.width} x {image.height} pixels; at most {LARGEST_PHOTOGRAPH:,} fit")
            images[i] = _as_bytes(image, pil).resize((224, 224), pil.Resampling.BILINEAR)
        except pil.UnidentifiedImageError:
            raise _wrong(path, "a JPEG or a PNG", "something else", "Replace the file.") from None
        except OSError as error:
            if error.filename:  # an error of the disk; PIL's errors about the content name no file
                raise
            raise _wrong(path, "an image", f"what cannot be read ({error})", "Replace the file.") from None
        except Exception as error:  # PIL raises a dozen kinds of errors for a damaged file
            raise _wrong(path, "an image", f"what cannot be read ({error})", "Replace the file.") from None
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _as_bytes(image, pil):
    """Convert an image to 8-bit RGB; divide 16-bit greys by 257, because Pillow would clip them at 255."""
    if image.mode.startswith("I"):
        image = pil.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        raise FileError(f"pixels of mode {image.mode}, where 8 bits a channel are expected")
    return image.convert("RGB")
