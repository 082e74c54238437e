"""Image files as training and `predict` read them alike: found in folders, decoded to RGB."""

import os
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
from PIL import ExifTags, Image

T = TypeVar("T")
Image.init()
# Neither what Pillow only recognizes nor what would start another program (EPS).
_FORMATS = sorted(set(Image.OPEN) - {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
EXTENSIONS = {e for e, f in Image.registered_extensions().items() if f in (*_FORMATS, "MPO")}
"""Endings, in lower case, of the files that Pillow decodes."""
_HIDDEN = {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"}
_T = Image.Transpose
_TURNS = dict(enumerate((_T.FLIP_LEFT_RIGHT, _T.ROTATE_180, _T.FLIP_TOP_BOTTOM), start=2))
_TURNS |= dict(enumerate((_T.TRANSPOSE, _T.ROTATE_270, _T.TRANSVERSE, _T.ROTATE_90), start=5))


class UnreadableImage(ValueError):
    """An image that cannot be decoded, or not without a guess; the message names the file."""


def decode(source: str | Path | Image.Image) -> Image.Image:
    """An image in RGB, 8 bits per channel, upright, whatever the file holds.

    Grey of 16 bits is scaled by 1/257, floats by 255. Transparent parts show a white ground. EXIF's
    orientation is applied. Of several frames the first one counts.

    Args:
        source: A file, or an image that Pillow opened or made.

    Raises:
        UnreadableImage: If Pillow cannot decode it, or its grey values have no certain range:
            integers of 32 bits, floats outside [0, 1].
    """
    return convert(source, _rgb)


def convert(source: str | Path | Image.Image, change: Callable[[Image.Image], T]) -> T:
    """Applies `change` to an image; whatever it or Pillow raises is an `UnreadableImage`."""
    try:
        if isinstance(source, Image.Image):
            return change(source)
        with Image.open(source, formats=_FORMATS) as image:
            return change(image)
    except Exception as error:  # Pillow raises nearly every type there is
        name = source if isinstance(source, str | Path) else getattr(source, "filename", None)
        reason = str(error) or type(error).__name__
        raise UnreadableImage(
            f"{printable(name or 'an image')} cannot be read ({reason}): replace or remove it"
        ) from error


def _rgb(image: Image.Image) -> Image.Image:
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged notes on a whole image
        turn = None
    if image.mode[0] in "IF":
        image = _grey(image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if turn is not None:
        image = image.transpose(turn)
    image.info.clear()  # EXIF's orientation, which is not to be applied twice
    return image


def _grey(image: Image.Image) -> Image.Image:
    """An image of 16 bits, 32 bits or floats in 8 bits, LA if it names a transparent value."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError("floats outside [0, 1] have no known range; save it in 8 or 16 bits")
        top = 1
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):  # those hold 16 bits
        raise ValueError("integers of 32 bits have no known range; save it in 8 or 16 bits")
    else:
        top = 4095 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 65535
    scaled = (values * (255 / top)).round().clip(0, 255).astype(np.uint8)
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # white is 0
        scaled = 255 - scaled
    grey = Image.fromarray(scaled)
    if (key := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray((values != key).astype(np.uint8) * 255))
    return grey


def image_files(folder: str | Path) -> list[str]:
    """Paths of the images in a folder and the folders below it, sorted, hidden ones left out.

    Warns of files of other kinds.

    Raises:
        OSError: If a folder cannot be listed.
    """
    files = []
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:] = filter(visible, folders)
        files.append((parent, sorted(filter(visible, names))))
    paths = [os.path.join(parent, name) for parent, names in sorted(files) for name in names]
    others = [path for path in paths if _ending(path) not in EXTENSIONS]
    warn_left_out(folder, others, "are not images that Pillow reads")
    return [path for path in paths if _ending(path) in EXTENSIONS]


def readable(folder: str | Path, files: list[str], threads: int = 1) -> list[str]:
    """Those of a folder's images that can be read; warns of the others."""

    def check(file: str) -> bool:
        try:
            with Image.open(file, formats=_FORMATS) as image:
                image.draft("L", (1, 1))  # JPEG in a third of the time
                return decode(image) is not None
        except Exception:
            return False

    with ThreadPool(max(1, threads)) as pool:
        whole = dict(zip(files, pool.map(check, files), strict=True))
    warn_left_out(folder, [file for file in files if not whole[file]], "cannot be read")
    return [file for file in files if whole[file]]


def warn_left_out(folder: str | Path, files: list[str], reason: str) -> None:
    """Says how many files of a folder are left out and why, of which kinds, and names some."""
    if files:
        kinds = Counter(_ending(file) or "without an ending" for file in files).most_common(5)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds)
        names = ", ".join(printable(file) for file in files[:5])
        warnings.warn(
            f"{printable(folder)}: {len(files)} ({counts}) {reason} and are left out: {names}",
            stacklevel=2,
        )


def visible(name: str) -> bool:
    """Whether a file or folder is not one that systems hide, or make for themselves."""
    return not name.startswith(".") and name not in _HIDDEN


def printable(path: str | Path) -> str:
    r"""A path as text that any file can hold: bytes that are not UTF-8 become `\xe9`."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _ending(file: str) -> str:
    return os.path.splitext(file)[1].lower()


def _refuse(error: OSError) -> NoReturn:
    raise error
