"""What is read of an image is what the file holds, or the file is named."""

import io
import os
import struct

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from eenet.data.decode import UnreadableImage, decode, image_files, printable, readable

COLORS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda s: (*s, 3)))
WORDS = arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=9))
RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (16, 1))

_TAGS = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 110, 277: 1, 278: 1}
TWELVE_BITS = struct.pack("<2sHIH", b"II", 42, 8, len(_TAGS))
TWELVE_BITS += b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in _TAGS.items())
TWELVE_BITS += bytes(4) + bytes.fromhex("fff000808010")  # 4095, 0, 2056, 16


def stored(image, kind, **options):
    image.save(file := io.BytesIO(), kind, **options)
    return file


def pixels(source):
    image = decode(source)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "ICO", "PCX", "SGI", "QOI"])
@given(values=COLORS)
def test_colors_are_read_as_they_were_written(kind, values):
    assume(kind != "PCX" or values.shape[1] % 2 == 0)  # Pillow 12 cannot read its own odd ones
    options = {"sizes": [values.shape[1::-1]]} if kind == "ICO" else {}
    file = stored(Image.fromarray(values), kind, **options)
    assert np.array_equal(pixels(file), values)
    assert np.array_equal(pixels(Image.open(file)), values)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@given(values=WORDS)
def test_grey_of_16_bits_is_scaled(kind, values):
    read = pixels(stored(Image.fromarray(values), kind))
    assert np.abs(read - values[..., None] / 257).max() <= 0.5


def test_grey_with_other_ranges_is_scaled_or_refused():
    grey = pixels(Image.fromarray(RAMP))
    assert np.array_equal(grey[..., 0], RAMP)
    floats = Image.fromarray((RAMP / 255).astype(np.float32))
    assert np.array_equal(pixels(stored(floats, "TIFF")), grey)
    white_is_0 = stored(Image.fromarray(RAMP.astype(np.uint16) * 257), "TIFF", tiffinfo={262: 0})
    assert np.array_equal(pixels(white_is_0), 255 - grey)
    assert pixels(io.BytesIO(TWELVE_BITS))[0, :, 0].tolist() == [255, 0, 128, 1]
    for values in (RAMP.astype(np.int32) * 257, RAMP.astype(np.float32), RAMP * np.float32("nan")):
        with pytest.raises(UnreadableImage, match="no known range; save it in 8 or 16 bits"):
            decode(stored(Image.fromarray(values), "TIFF"))


def test_other_modes_keep_their_colors():
    colors = Image.fromarray(np.dstack([RAMP, 255 - RAMP, RAMP // 2]))
    for mode in ("P", "CMYK", "1", "L"):
        image = colors.convert(mode)
        assert np.array_equal(pixels(stored(image, "TIFF")), np.asarray(image.convert("RGB")))
    frames = [Image.new("RGB", (9, 9), color) for color in ("red", "blue")]
    animated = stored(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(pixels(animated), np.asarray(frames[0]))
    for kind in ("WEBP", "AVIF", "JPEG2000"):
        assert np.abs(pixels(stored(colors, kind, lossless=True)) - np.asarray(colors)).max() < 60


@given(values=COLORS, alpha=st.integers(0, 255))
def test_transparent_parts_show_white(values, alpha):
    image = Image.fromarray(values)
    image.putalpha(alpha)
    expected = 255 + (values.astype(int) - 255) * alpha / 255
    assert np.abs(pixels(stored(image, "PNG")) - expected).max() <= 1


def test_a_transparent_value_shows_white():
    for mode in ("P", "L", "I;16"):
        image = Image.new(mode, (2, 1), 1)
        image.putpixel((1, 0), 2)
        if mode == "P":
            image.putpalette([0, 0, 0, 0, 0, 0, 9, 9, 9])
        read = pixels(stored(image, "PNG", transparency=1))
        assert read[0, :, 0].tolist() == [255, {"P": 9, "L": 2, "I;16": 0}[mode]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_stand_upright(kind):
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :16] = 255  # only the upper left is bright
    of_row_and_column = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0)}
    for orientation in range(1, 9):
        flips = of_row_and_column[orientation if orientation < 5 else (1, 4, 3, 2)[orientation - 5]]
        stored_pixels = upright.T if orientation > 4 else upright
        for axis in np.flatnonzero(flips):
            stored_pixels = np.flip(stored_pixels, axis)
        exif = Image.Exif()
        exif[0x112] = orientation
        file = stored(Image.fromarray(stored_pixels.copy()).convert("RGB"), kind, exif=exif)
        image = decode(file)
        assert image.size == (32, 16), orientation
        assert np.abs(np.asarray(image)[..., 0].astype(int) - upright).max() < 40, orientation
        assert decode(image).tobytes() == image.tobytes()  # not turned twice


SEEDS = [("PNG", "RGBA"), ("PNG", "I;16"), ("TIFF", "RGB"), ("PPM", "RGB"), ("GIF", "P")]
SEEDS += [("JPEG", "RGB"), ("BMP", "RGB"), ("WEBP", "RGB"), ("ICO", "RGB"), ("QOI", "RGB")]


@pytest.mark.parametrize(("kind", "mode"), SEEDS)
@given(data=st.data())
def test_damage_is_named(kind, mode, data, tmp_path_factory):
    image = Image.fromarray(RAMP)
    content = bytearray(stored(image if mode == "I;16" else image.convert(mode), kind).getvalue())
    content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            place = data.draw(st.integers(0, min(len(content) - 1, 99)))
            content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged-{kind}"
    path.write_bytes(content)
    try:
        message = f"{path}: {decode(path).mode}"
    except UnreadableImage as error:
        message = str(error)
    assert message.startswith((f"{path}: RGB", f"{path} cannot be read"))


def test_a_wrong_path_is_named():
    for path in ("no-such-file.png", "nul\0.png"):
        with pytest.raises(UnreadableImage, match=f"^{path} cannot be read"):
            decode(path)


NAMES = st.binary(min_size=1, max_size=6).filter(lambda name: not set(name) & set(b"./\0"))


@given(names=st.sets(NAMES, min_size=1), others=st.sets(NAMES))
def test_folders_are_listed_whole(names, others, tmp_path_factory):
    root = os.fsencode(tmp_path_factory.mktemp("names"))
    os.mkdir(root + b"/.hidden")
    wanted = [root + b"/" + name + b".PNG" for name in names]
    for path in [*wanted, root + b"/.x.png", root + b"/.hidden/x.png", root + b"/Thumbs.db"]:
        Image.new("L", (2, 2), 7).save(file := io.BytesIO(), "PNG")
        with open(path, "wb") as target:
            target.write(file.getvalue())
    found = image_files(os.fsdecode(root))
    assert sorted(map(os.fsencode, found)) == sorted(wanted)
    for path in found:
        assert pixels(path).tolist() == [[[7] * 3] * 2] * 2
        assert printable(path).encode()
    for name in others:
        with open(root + b"/" + name + b".txt", "wb"):
            pass
    if others:
        with pytest.warns(UserWarning, match=rf"{len(others)} \({len(others)} \.txt\) are not im"):
            assert image_files(os.fsdecode(root)) == found


def test_unreadable_files_are_left_out_by_name(tmp_path):
    files = [str(tmp_path / f"{n}.jpg") for n in range(3)]
    for file in files:
        Image.fromarray(np.dstack([RAMP] * 3)).save(file)
    os.truncate(files[1], 500)
    with pytest.warns(UserWarning, match=r"1 \(1 \.jpg\) cannot be read .*1\.jpg"):
        assert readable(tmp_path, files, threads=2) == [files[0], files[2]]
