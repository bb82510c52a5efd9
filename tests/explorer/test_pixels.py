"""What the page's model sees of a photo is what `Preprocess.view` gives: not one level apart."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms, PngImagePlugin

import minivit
from minivit.preprocess import Preprocess
from minivit.vit import VisionTransformer
from tests.explorer.pages import Opened, opened

pytestmark = pytest.mark.browser
WIDTH, HEIGHT = 150, 100


@pytest.fixture(scope="module")
def here(browser: Any, scenes_page: Path) -> Iterator[Opened]:
    with opened(browser, scenes_page) as page:
        page.wait_until("passes.has(1)")
        yield page


def _colours(seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """Soft random colours, all levels, (width, height)."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 6 + 2, size[0] // 6 + 2, 3))
    return Image.fromarray(noise.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def _saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _strange_profile() -> bytes:
    """sRGB with red and green exchanged: who looks at it sees other colours."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    entries = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile)


def _png16(levels: np.ndarray[Any, Any], kind: int) -> bytes:
    """A PNG of 16 bits a number (height, width, …); kind 0 is grey, 2 is RGB."""
    rows = levels.astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 16, kind, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")):
        out += struct.pack(">I", len(data)) + name + data
        out += struct.pack(">I", zlib.crc32(name + data))
    return out


def _random16(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).integers(0, 65536, shape)


def _gamma() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (100_000).to_bytes(4, "big"))
    return info


def _see_through() -> Image.Image:
    image = _colours()
    alpha = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    image.putalpha(Image.fromarray(alpha))
    return image


FILES: dict[str, Callable[[], bytes]] = {
    **{f"EXIF {k}.jpg": lambda k=k: _saved(_colours(), "JPEG", exif=_exif(k)) for k in range(1, 9)},
    **{
        f"EXIF {k}.webp": lambda k=k: _saved(_colours(), "WEBP", exif=_exif(k).tobytes())
        for k in range(1, 9)
    },
    "EXIF 6.png": lambda: _saved(_colours(), "PNG", exif=_exif(6)),
    "4:4:4.jpg": lambda: _saved(_colours(), "JPEG", quality=95, subsampling=0),
    "progressive.jpg": lambda: _saved(_colours(), "JPEG", progressive=True),
    "CMYK.jpg": lambda: _saved(_colours().convert("CMYK"), "JPEG"),
    "grey.jpg": lambda: _saved(_colours().convert("L"), "JPEG"),
    "profile.jpg": lambda: _saved(_colours(), "JPEG", icc_profile=_strange_profile()),
    "profile.png": lambda: _saved(_colours(), "PNG", icc_profile=_strange_profile()),
    "gamma.png": lambda: _saved(_colours(), "PNG", pnginfo=_gamma()),
    "palette.png": lambda: _saved(_colours().quantize(64), "PNG"),
    "clear palette.png": lambda: _saved(
        _colours().quantize(64), "PNG", transparency=bytes([0, 128, 255, 255] * 16)
    ),
    "see-through.png": lambda: _saved(_see_through(), "PNG"),
    "one bit.png": lambda: _saved(_colours().convert("1"), "PNG"),
    "16-bit grey.png": lambda: _png16(_random16(HEIGHT, WIDTH), 0),
    "16-bit grey by Pillow.png": lambda: _saved(
        Image.fromarray(_random16(HEIGHT, WIDTH).astype(np.uint16)), "PNG"
    ),
    "16-bit RGB.png": lambda: _png16(_random16(HEIGHT, WIDTH, 3), 2),
    "lossy.webp": lambda: _saved(_colours(), "WEBP", quality=80),
    "lossless profile.webp": lambda: _saved(
        _colours(), "WEBP", lossless=True, icc_profile=_strange_profile()
    ),
    "see-through lossless.webp": lambda: _saved(_see_through(), "WEBP", lossless=True, exact=True),
    "see-through lossy.webp": lambda: _saved(_see_through(), "WEBP", quality=80),
    "picture.gif": lambda: _saved(_colours(), "GIF"),
    "picture.bmp": lambda: _saved(_colours(), "BMP"),
}


def dropped(here: Opened, path: Path) -> np.ndarray[Any, Any]:
    """(height, width, 3) of what the page's model sees of a file."""
    count = here.page.evaluate("page.pictures.length")
    here.page.set_input_files("#files", [str(path)])
    here.wait_until(f"passes.has({count}) || !document.getElementById('trouble').hidden")
    assert here.page.evaluate("document.getElementById('trouble').hidden"), here.text("#trouble")
    width, height = here.page.evaluate(f"page.pictures[{count}].size")
    pixels = here.array(f"page.pictures[{count}].pixels.pixels", "uint8")
    return pixels.reshape(height, width, -1)


def assert_seen(here: Opened, model: VisionTransformer, path: Path) -> None:
    expected = np.asarray(model.preprocess.view(minivit.open_image(path)))
    np.testing.assert_array_equal(dropped(here, path), expected)


@pytest.mark.parametrize("name", FILES)
def test_a_dropped_file_is_seen_as_pillow_sees_it(
    here: Opened, scenes_model: VisionTransformer, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name.replace(":", "")
    path.write_bytes(FILES[name]())
    assert_seen(here, scenes_model, path)
    assert not here.complaints


def test_the_files_say_something() -> None:
    """The profile and the orientations change what somebody sees who looks at them, or does not."""
    with Image.open(io.BytesIO(FILES["profile.png"]())) as image:
        target = ImageCms.createProfile("sRGB")
        source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        converted = ImageCms.profileToProfile(image, source, target)
        assert converted is not None
        assert np.abs(np.asarray(converted, int) - np.asarray(image, int)).max() > 50


@pytest.mark.parametrize(
    "name", sorted(path.name for path in Path("tutorials/photos").glob("*.jpg"))
)
def test_the_lessons_photos_are_seen_as_pillow_sees_them(
    here: Opened, scenes_model: VisionTransformer, name: str
) -> None:
    assert_seen(here, scenes_model, Path("tutorials/photos") / name)


@pytest.mark.parametrize("kind", ["tiff", "cut off", "no picture", "empty"])
def test_what_the_browser_cannot_decode_is_said(here: Opened, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.jpg"
    whole = _saved(_colours(), "JPEG")
    path.write_bytes(
        {
            "tiff": _saved(_colours(), "TIFF"),
            "cut off": whole[: len(whole) // 2],
            "no picture": b"never a picture",
            "empty": b"",
        }[kind]
    )
    count = here.page.evaluate("page.pictures.length")
    here.page.set_input_files("#files", [str(path)])
    here.wait_until("!document.getElementById('trouble').hidden")
    line = here.text("#trouble")
    assert line == f"{path.name}: this browser cannot decode it; save it as JPEG or PNG"
    assert here.page.evaluate("page.pictures.length") == count
    here.page.keyboard.press("Escape")
    assert here.page.evaluate("document.getElementById('trouble').hidden")
    assert not here.complaints


# ---- all settings ------------------------------------------------------------------------------

MODES: dict[str, dict[str, Any]] = {
    "crop": {"mode": "crop", "image_size": (64, 64)},
    "crop, fraction": {"mode": "crop", "image_size": (64, 64), "crop_fraction": 0.875},
    "crop, halves down": {
        "mode": "crop",
        "image_size": (61, 61),
        "crop_fraction": 0.9,
        "crop_rounding": "down",
    },
    "crop, 2:3": {"mode": "crop", "image_size": (48, 72), "crop_fraction": 0.9},
    "squash": {"mode": "squash", "image_size": (56, 80)},
    "squash, fraction": {"mode": "squash", "image_size": (56, 80), "crop_fraction": 0.8},
    "fit_longest": {"mode": "fit_longest", "image_size": (70, 70)},
    "fit_shortest": {"mode": "fit_shortest", "image_size": (56, 56), "multiple_of": 14},
}
SIZES = [(150, 100), (100, 150), (97, 131), (40, 30), (64, 64), (333, 57), (85, 186)]
PILLOW = int(PIL.__version__.partition(".")[0])  # before 13 it never went down first


@pytest.mark.parametrize("filter", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_every_mode_and_filter_is_pillows(here: Opened, mode: str, filter: str, grey: bool) -> None:
    statistics = ((0.5,), (0.25,)) if grey else ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    settings = Preprocess(
        filter=filter,  # type: ignore[arg-type]
        mean=statistics[0],
        std=statistics[1],
        **MODES[mode],
    )
    for number, size in enumerate(SIZES):
        if PILLOW < 13 and size[1] >= size[0]:
            continue
        image = _colours(number, size)
        here.page.evaluate(
            "([text, width, height, settings]) => { window.seen = view({pixels: fromBase64(text), "
            "width, height, channels: 3}, settings); window.numbers = normalize(seen, settings); }",
            [base64.b64encode(image.tobytes()).decode(), *size, settings.to_dict()],
        )
        expected = settings.view(image)
        assert here.page.evaluate("[seen.width, seen.height]") == list(expected.size), size
        pixels = here.array("seen.pixels", "uint8").reshape(
            np.asarray(expected).shape + (1,) * grey
        )
        np.testing.assert_array_equal(pixels[..., 0] if grey else pixels, np.asarray(expected))
        numbers = here.array("numbers.pixels").reshape(settings(image).shape)
        np.testing.assert_array_equal(numbers, settings(image).numpy())
