"""Read pictures: Restricted ImageNet, a folder of one's own with one folder a class, or a single file."""

import io
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable
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
        images[i] = _pixels(path, lambda image: image.resize((224, 224), pil.Resampling.BILINEAR))
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def read_picture(path: str | os.PathLike, shape: tuple[int, int, int]) -> Tensor:
    """Read a PNG or a JPEG as bytes of a wanted shape: upright, scaled to cover it, and cropped at the middle.

    Args:
        path: the file, whatever its name ends in, of at most 64 MB and 67 million pixels.
        shape: (C, H, W); C is 1 for grey, 3 for colours. A transparent part takes the colour that it hides.

    Returns:
        uint8 (C, H, W) in 0 .. 255; divide by 255 for images in [0, 1].

    Raises:
        data.DataError: no such file, or not a picture; the message says what it is instead.
        ValueError: another shape.
    """
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
        raise ValueError(f"shape must be (1, H, W) or (3, H, W); got {tuple(shape)}.")
    colours, height, width = shape
    pil = _import("PIL.Image", "pillow", "a picture")
    ops = _import("PIL.ImageOps", "pillow", "a picture")

    def finish(image):
        covering = ops.fit(ops.exif_transpose(image), (width, height), pil.Resampling.BILINEAR)
        return covering if colours == 3 else covering.convert("L")

    path = Path(path)
    try:
        pixels = _pixels(path, finish)
    except OSError as error:
        raise _wrong(path, "a PNG or a JPEG", (error.strerror or str(error)).lower(), "Correct the path.") from None
    return torch.from_numpy(pixels.reshape(height, width, colours)).permute(2, 0, 1).contiguous()


def read_folder(folder: str | os.PathLike, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Read pictures in folders, one folder a class: images uint8 (N, C, H, W), labels int64 (N,), names of classes.

    Raises:
        data.DataError: no folder with at least two folders of pictures in it, or a file that is not a picture.
    """
    folder = Path(folder)
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".") if folder.is_dir() else []
    files = {name: [p for p in sorted((folder / name).iterdir()) if _PICTURE.fullmatch(p.name)] for name in classes}
    files = {name: paths for name, paths in files.items() if paths}
    if len(files) < 2:
        came = f"{len(files)} of them" if folder.is_dir() else "no folder"
        raise _wrong(folder, "two or more folders with PNG or JPEG files, one a class", came, "See data.of_folder.")
    pairs = [(path, label) for label, paths in enumerate(files.values()) for path in paths]
    images = torch.stack([read_picture(path, shape) for path, _ in pairs])
    return images, torch.tensor([label for _, label in pairs]), tuple(files)


_PICTURE = re.compile(r"[^.].*\.(jpe?g|png)", re.IGNORECASE)


def _pixels(path: Path, finish: Callable) -> np.ndarray:
    """Return the pixels of a picture as `finish`, a function of a PIL image, leaves it: uint8 (H, W, 3) or (H, W)."""
    pil = _import("PIL.Image", "pillow", "a picture")
    try:
        # Only two formats, those of ImageNet: Pillow may start a program for others, as Ghostscript for EPS.
        content = io.BytesIO(read_bytes(path, LARGEST_PHOTOGRAPH))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pil.DecompressionBombWarning)  # checked below
            image = pil.open(content, formats=("JPEG", "PNG"))
        if math.prod(image.size) > LARGEST_PHOTOGRAPH:
            raise FileError(f"{image.width} x {image.height} pixels; at most {LARGEST_PHOTOGRAPH:,} fit")
        return np.array(finish(_as_bytes(image, pil)))
    except pil.UnidentifiedImageError:
        raise _wrong(path, "a JPEG or a PNG", "something else", "Replace the file.") from None
    except OSError as error:
        if error.filename:  # an error of the disk; PIL's errors about the content name no file
            raise
        raise _wrong(path, "an image", f"what cannot be read ({error})", "Replace the file.") from None
    except Exception as error:  # PIL raises a dozen kinds of errors for a damaged file
        raise _wrong(path, "an image", f"what cannot be read ({error})", "Replace the file.") from None


def _as_bytes(image, pil):
    """Convert an image to 8-bit RGB; divide 16-bit greys by 257, because Pillow would clip them at 255."""
    if image.mode.startswith("I"):
        image = pil.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        raise FileError(f"pixels of mode {image.mode}, where 8 bits a channel are expected")
    return image.convert("RGB")
