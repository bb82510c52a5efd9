"""Photos of every kind open upright and in RGB, bad files are refused in one line, and the
geometry is that of the code which trained the weights."""

from __future__ import annotations

import builtins
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from minivit.plain_text import visible
from minivit.preprocess import BadImageError, Preprocess, check_image, open_image, to_rgb

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
RAMP = np.linspace(0, 65535, 30 * 20).reshape(20, 30)


def make(**changes) -> Preprocess:
    fields = {"image_size": (224, 224), "mode": "crop", "filter": "bicubic"}
    return Preprocess(**(fields | {"mean": MEAN, "std": STD} | changes))


def noise(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * 10_007 + height)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def colours_of(transform: Preprocess, image: Tensor) -> Tensor:
    """(3, H, W), normalised -> on the scale 0..1."""
    mean, std = torch.tensor([transform.mean, transform.std]).view(2, 3, 1, 1)
    return (image * std + mean).clamp(0, 1)


def corners() -> Image.Image:
    """A 3:2 picture whose four quarters differ, so that each of the 8 orientations shows."""
    image = Image.new("RGB", (30, 20), WHITE)
    image.paste(RED, (0, 0, 15, 10))
    image.paste(GREEN, (15, 0, 30, 10))
    image.paste(BLUE, (0, 10, 15, 20))
    return image


# --- opening ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(tmp_path, orientation, suffix):
    # what a camera stores, so that the viewer's turn gives `corners` again (EXIF 2.3, tag 274)
    upright = np.asarray(corners())
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options.get(suffix, {}))
    opened = open_image(path)
    assert opened.size == (30, 20)
    assert 274 not in opened.getexif()  # or a viewer would turn it once more
    np.testing.assert_allclose(np.asarray(opened), upright.astype(int), atol=4)


def test_broken_exif_data_does_not_cost_the_photo_or_its_orientation(tmp_path):
    image = corners()
    image.save(tmp_path / "junk.jpg", exif=b"Exif\0\0no TIFF header here")
    image.save(tmp_path / "header.png", exif=b"Exif\0\0M\x07\0*\0\0\0\x08")
    with Image.open(tmp_path / "header.png") as raw, pytest.raises(SyntaxError):
        raw.getexif()
    exif = Image.Exif()
    exif[274], exif[271] = 6, "maker"
    data = bytearray(exif.tobytes())
    entry = data.index((271).to_bytes(2, "big"))  # tag, type, count, value: 2 + 2 + 4 + 4 bytes
    data[entry + 2 : entry + 4] = (12).to_bytes(2, "big")  # an ASCII tag that says it is a double
    image.save(tmp_path / "tag.jpg", exif=bytes(data))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(tmp_path / "junk.jpg").size == (30, 20)
        assert open_image(tmp_path / "header.png").size == (30, 20)
        assert open_image(tmp_path / "tag.jpg").size == (20, 30)


def test_an_orientation_beside_a_tag_that_cannot_be_written_back(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[274], exif[271] = 6, "maker"
    corners().save(tmp_path / "photo.jpg", exif=exif)
    written = Image.Exif.tobytes

    def tobytes(self, offset=8):
        if 271 in self:
            raise TypeError("bad operand type for abs(): 'bytes'")  # met in fuzzed photos
        return written(self, offset)

    monkeypatch.setattr(Image.Exif, "tobytes", tobytes)
    assert open_image(tmp_path / "photo.jpg").size == (20, 30)


@pytest.mark.parametrize("mode", ["I;16 png", "I;16 tiff", "I;16B tiff", "I tiff", "F tiff"])
def test_deep_grey_keeps_its_contrast(tmp_path, mode):
    kind, suffix = mode.split()
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}[kind]
    path = tmp_path / f"grey.{suffix}"
    Image.fromarray((RAMP / 65535 if kind == "F" else RAMP).astype(dtype)).save(path)
    opened = open_image(path)
    assert (opened.mode, opened.size) == ("RGB", (30, 20))
    expected = np.repeat((RAMP / 257)[..., None], 3, axis=2)
    np.testing.assert_allclose(np.asarray(opened, dtype=float), expected, atol=0.51)


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        ([0, 128, 65535], "I", [0, 0, 255]),
        ([0, 128, 12850], "I", [0, 0, 50]),
        ([0, 100_000, 200_000], "I", [0, 128, 255]),  # beyond 16 bits: stretched
        ([-100, 0, 100], "I", [0, 128, 255]),
        ([-5, -5, -5], "I", [0, 0, 0]),
        ([70_000] * 3, "I", [255, 255, 255]),
        ([0.0, 0.5, 1.0], "F", [0, 128, 255]),
        ([0.0, 128.0, 255.0], "F", [0, 128, 255]),
        ([-1.0, 0.0, 3.0], "F", [0, 64, 255]),
        ([float("nan"), float("inf"), 0.5], "F", [0, 255, 128]),
        ([float("nan")] * 3, "F", [0, 0, 0]),
    ],
)
def test_ranges_of_integers_and_floats(values, mode, expected):
    image = Image.fromarray(np.array([values], dtype={"I": np.int32, "F": np.float32}[mode]))
    assert image.mode == mode
    assert [pixel[0] for pixel in np.asarray(to_rgb(image))[0]] == expected


def test_cmyk_jpeg_is_not_inverted(tmp_path):
    path = tmp_path / "print.jpg"  # Pillow writes what Adobe does: inverted, with an Adobe marker
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=100)
    assert b"Adobe" in path.read_bytes()
    red, green, blue = open_image(path).getpixel((8, 8))
    assert red > 245 and green < 10 and blue < 10


def test_transparent_pixels_become_white(tmp_path):
    saved = {}
    palette = Image.new("P", (8, 4), 0)
    palette.putpalette([*RED, *BLUE])
    palette.paste(1, (4, 0, 8, 4))
    saved["index.png"] = palette, {"transparency": 0}
    saved["levels.png"] = palette, {"transparency": bytes([0, 255])}
    saved["index.gif"] = palette, {"transparency": 0}
    rgba = Image.new("RGBA", (8, 4), (*RED, 0))
    rgba.paste((*BLUE, 255), (4, 0, 8, 4))
    saved["alpha.png"] = saved["alpha.tiff"] = rgba, {}
    saved["alpha.webp"] = rgba, {"lossless": True}
    keyed = Image.new("RGB", (8, 4), RED)
    keyed.paste(BLUE, (4, 0, 8, 4))
    saved["key.png"] = keyed, {"transparency": RED}
    for name, (image, options) in saved.items():
        image.save(tmp_path / name, **options)
        opened = open_image(tmp_path / name)
        assert (opened.mode, opened.getpixel((1, 1)), opened.getpixel((6, 1))) == (
            ("RGB", WHITE, BLUE)
        ), name
    palette.save(tmp_path / "opaque.png")
    assert open_image(tmp_path / "opaque.png").getpixel((1, 1)) == RED


def test_grey_of_each_kind(tmp_path):
    Image.new("L", (4, 4), 100).save(tmp_path / "l.png")
    Image.new("LA", (4, 4), (0, 128)).save(tmp_path / "la.png")
    Image.new("1", (4, 4), 1).save(tmp_path / "one.png")
    Image.new("1", (4, 4), 1).save(tmp_path / "one.tiff")
    deep = Image.fromarray(np.full((4, 4), 300, dtype=np.uint16))
    deep.save(tmp_path / "deep.png", transparency=300)
    levels = {"l.png": 100, "la.png": 127, "one.png": 255, "one.tiff": 255, "deep.png": 255}
    for name, level in levels.items():
        assert open_image(tmp_path / name).getpixel((2, 2)) == (level,) * 3, name


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, GREEN, BLUE)]
    for suffix in ("gif", "webp", "png", "tiff"):
        options = {"lossless": True} if suffix == "webp" else {}
        path = tmp_path / f"moving.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert open_image(path).getpixel((2, 2)) == RED, suffix


@pytest.mark.parametrize("mode", ["La", "PA", "RGBa", "HSV", "YCbCr", "RGBX", "CMYK"])
def test_to_rgb_and_call_take_the_rarer_modes(mode):
    image = Image.new(mode, (6, 4))
    assert to_rgb(image).mode == "RGB" and to_rgb(image).size == (6, 4)
    assert make(mode="squash", image_size=(8, 8))(image).shape == (3, 8, 8)


def test_call_converts_as_open_image_does(tmp_path):
    Image.new("LA", (12, 8), (0, 128)).save(tmp_path / "la.png")
    transform = make(image_size=(8, 8))
    with Image.open(tmp_path / "la.png") as raw:
        assert torch.equal(transform(raw), transform(open_image(tmp_path / "la.png")))
    plain = noise(6, 4)
    assert to_rgb(plain) is plain


# --- refusing --------------------------------------------------------------------------------


def refused(path: str | os.PathLike[str]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImageError) as caught:
            open_image(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    name = visible(os.fspath(path)) or repr("")
    assert message.startswith(f"{name}: ")
    return message


def test_bad_files_are_refused_in_one_line(tmp_path):
    assert "no such file" in refused(tmp_path / "missing.jpg")
    assert "folder" in refused(tmp_path)
    assert "folder" in refused(str(tmp_path))
    (tmp_path / "empty.png").touch()
    assert "empty (0 bytes)" in refused(tmp_path / "empty.png")
    (tmp_path / "letter.jpg").write_text("Dear reader,\nthis is no picture.")
    assert "not a picture" in refused(tmp_path / "letter.jpg")
    (tmp_path / "figure.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "not a picture" in refused(tmp_path / "figure.eps")  # Ghostscript is not started
    (tmp_path / "two\nlines.jpg").touch()
    assert "empty" in refused(tmp_path / "two\nlines.jpg")
    refused("")
    refused("nul\0byte.png")
    refused(tmp_path / ("x" * 300))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff", "bmp", "ppm"])
def test_truncated_files_are_refused_wherever_they_end(tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    noise(90, 60).save(path)
    data = path.read_bytes()
    for part in (0.02, 0.3, 0.5, 0.8):
        path.write_bytes(data[: int(len(data) * part)])
        message = refused(path)
        assert "damaged" in message or "not a picture" in message


@given(st.sampled_from(["jpeg", "png", "webp", "gif", "tiff"]), st.randoms(use_true_random=False))
def test_damaged_files_never_raise_anything_else(tmp_path_factory, suffix, random):
    path = tmp_path_factory.mktemp("damaged") / f"photo.{suffix}"
    noise(12, 8).save(path)
    data = bytearray(path.read_bytes())
    for _ in range(8):
        data[random.randrange(len(data))] = random.randrange(256)
    path.write_bytes(data)
    try:
        assert open_image(path).mode == "RGB"
    except BadImageError as error:
        assert len(str(error).splitlines()) == 1


def test_permission_denied(tmp_path, monkeypatch):
    noise(6, 4).save(tmp_path / "secret.png")

    def forbidden(*_args, **_options):  # chmod would not stop a test that runs as root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", forbidden)
    assert "permission denied" in refused(tmp_path / "secret.png")


@pytest.mark.parametrize("limit", [599, 299])  # Pillow warns above the first, refuses above twice
def test_a_picture_beyond_the_limit_is_refused(tmp_path, monkeypatch, limit):
    noise(30, 20).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    message = refused(tmp_path / "large.png")
    assert "600 pixels" in message and f"limit is {limit}" in message
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert open_image(tmp_path / "large.png").size == (30, 20)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_beyond_the_limit_is_decoded_at_half_its_size(tmp_path, monkeypatch, progressive):
    path = tmp_path / "large.jpg"
    exif = Image.Exif()
    exif[274] = 6
    picture = corners().resize((301, 200), Image.Resampling.NEAREST)
    picture.save(path, exif=exif, progressive=progressive)
    whole = open_image(path)
    assert whole.size == (200, 301)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 301 * 200 - 1)
    half = open_image(path)
    assert half.size == (100, 151)
    small = np.asarray(whole.resize(half.size, Image.Resampling.BOX), dtype=int)
    assert np.abs(np.asarray(half, dtype=int) - small).mean() < 2
    check_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 301 * 200 // 2 - 1)
    assert "60200 pixels" in refused(path)
    with pytest.raises(BadImageError, match="60200 pixels"):
        check_image(path)


def test_a_check_refuses_what_opening_refuses(tmp_path):
    for ending in ("jpg", "png", "webp", "gif", "tiff", "bmp", "ppm"):
        path = tmp_path / f"photo.{ending}"
        noise(60, 40).save(path)
        check_image(path)
        data = path.read_bytes()
        for damaged in (b"", data[:5], data[: len(data) // 2], data[:-9], b"text" + data[4:]):
            path.write_bytes(damaged)
            try:
                open_image(path)
            except BadImageError as error:
                with pytest.raises(BadImageError) as caught:
                    check_image(path)
                assert str(caught.value) == str(error)
            else:
                check_image(path)
    with pytest.raises(BadImageError, match="no such file"):
        check_image(tmp_path / "nothing.jpg")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's list of open files")
def test_the_file_is_closed(tmp_path):
    for name in ("good.png", "moving.gif", "bad.png"):
        path = tmp_path / name
        noise(60, 40).save(path, **({"save_all": True} if name == "moving.gif" else {}))
        if name == "bad.png":
            path.write_bytes(path.read_bytes()[:500])
        try:
            picture = open_image(path)  # kept: its being collected would close the file
        except BadImageError as error:
            picture = error
        handles = []
        for handle in Path("/proc/self/fd").iterdir():
            try:
                handles.append(os.readlink(handle))
            except FileNotFoundError:  # the handle of the listing itself
                continue
        assert str(path) not in handles and picture is not None


def test_pictures_without_pixels_and_other_things_are_refused():
    for mode in ("RGB", "RGBA", "F"):
        with pytest.raises(BadImageError, match="0x5"):
            make()(Image.new(mode, (0, 5)))
    with pytest.raises(BadImageError, match="5x0"):
        make().crop_box(5, 0)
    with pytest.raises(TypeError, match="ndarray"):
        make()(np.zeros((4, 4, 3), dtype=np.uint8))


# --- geometry --------------------------------------------------------------------------------

CROP_BOXES = [
    # 600x400 -> 384x256 -> offset (80, 16): 80 / 0.64 = 125, 16 / 0.64 = 25
    ({"crop_fraction": 0.875}, (600, 400), (224, 224), (125, 25, 475, 375)),
    ({"crop_fraction": 0.875}, (400, 600), (224, 224), (25, 125, 375, 475)),
    # 300x200 -> int(224 * 1.5) = 336 x 224 -> left 56 -> 50 of the photo
    ({}, (300, 200), (224, 224), (50, 0, 250, 200)),
    # floor(224 / 0.9) = 248, 300x200 -> 372x248 -> offset (74, 12)
    ({"crop_fraction": 0.9}, (300, 200), (224, 224), tuple(v / 1.24 for v in (74, 12, 298, 236))),
    # int(224 * 640 / 427) = int(335.7) = 335, left round(55.5) = 56
    ({}, (640, 427), (224, 224), (56 * 640 / 335, 0, 280 * 640 / 335, 427)),
    # half to even: 226x224 -> left 1; 227x224 -> left round(1.5) = 2; 225x224 -> round(0.5) = 0
    ({}, (225, 224), (224, 224), (0, 0, 224, 224)),
    ({}, (227, 224), (224, 224), (2, 0, 226, 224)),
    ({"crop_rounding": "down"}, (227, 224), (224, 224), (1, 0, 225, 224)),
    # squashed to 256x256, then 16 pixels from each side
    ({"mode": "squash", "crop_fraction": 0.875}, (512, 256), (224, 224), (32, 16, 480, 240)),
    # not square: 600x400 onto 96x32 -> scale 0.16: 96x64, top 16 -> 100
    ({"image_size": (32, 96)}, (600, 400), (96, 32), (0, 100, 600, 300)),
    ({"mode": "squash", "image_size": (32, 96)}, (600, 400), (96, 32), (0, 0, 600, 400)),
    ({"mode": "fit_longest", "image_size": (299, 299)}, (640, 427), (299, 199), (0, 0, 640, 427)),
    ({"mode": "fit_longest", "image_size": (299, 299)}, (427, 640), (199, 299), (0, 0, 427, 640)),
    # CATR multiplies by 299 / 550, which is rounded down, and cuts 298.99999999999994
    ({"mode": "fit_longest", "image_size": (299, 299)}, (550, 275), (298, 149), (0, 0, 550, 275)),
    ({"mode": "fit_longest", "image_size": (100, 200)}, (600, 400), (200, 133), None),
    ({"mode": "fit_shortest", "image_size": (100, 200)}, (600, 400), (150, 100), None),
    ({"mode": "fit_shortest"}, (600, 400), (336, 224), (0, 0, 600, 400)),
    # 224 / 427 * 640 = 335.7 -> 336; 500x375: 298.7 -> 304 = 19 * 16 (18.67 patches)
    ({"mode": "fit_shortest", "multiple_of": 16}, (427, 640), (224, 336), (0, 0, 427, 640)),
    ({"mode": "fit_shortest", "multiple_of": 16}, (500, 375), (304, 224), (0, 0, 500, 375)),
    # 30 is 1.875 patches of 16 -> 32; 45 is 2.81 -> 48; a tie of 2.5 patches goes up
    ({"mode": "fit_shortest", "multiple_of": 16, "image_size": (30, 30)}, (3, 2), (48, 32), None),
    ({"mode": "fit_shortest", "multiple_of": 16, "image_size": (16, 16)}, (5, 2), (48, 16), None),
]


@pytest.mark.parametrize(("changes", "photo", "seen", "box"), CROP_BOXES)
def test_sizes_and_boxes_are_those_computed_by_hand(changes, photo, seen, box):
    transform = make(**changes)
    image = noise(*photo)
    assert transform.view(image).size == seen
    assert transform(image).shape == (3, seen[1], seen[0])
    assert transform.crop_box(*photo) == pytest.approx(box or (0, 0, *photo), abs=1e-9)


MODES = [
    {"crop_fraction": 0.875},
    {"image_size": (64, 160)},
    {"image_size": (160, 64), "crop_fraction": 0.9},
    {"mode": "squash"},
    {"mode": "squash", "image_size": (64, 160)},
    {"mode": "fit_longest"},
    {"mode": "fit_shortest", "multiple_of": 16},
]


@pytest.mark.parametrize("photo", [(300, 200), (200, 300), (151, 100)])
@pytest.mark.parametrize("changes", MODES)
def test_a_mark_in_the_view_maps_back_to_its_place_in_the_photo(changes, photo):
    transform = make(filter="bilinear", **changes)
    left, top, right, bottom = transform.crop_box(*photo)
    for across, down in ((0.3, 0.4), (0.5, 0.5), (0.75, 0.6)):
        x = int(left + across * (right - left))
        y = int(top + down * (bottom - top))
        image = Image.new("RGB", photo, (0, 0, 128))
        image.paste(RED, (x - 3, y - 2, x + 4, y + 3))  # centre of mass: (x + 0.5, y + 0.5)
        view = transform.view(image)
        red = np.asarray(view)[..., 0].astype(float)
        rows, columns = np.indices(red.shape) + 0.5
        centre_x = (red * columns).sum() / red.sum() / view.width
        centre_y = (red * rows).sum() / red.sum() / view.height
        assert left + centre_x * (right - left) == pytest.approx(x + 0.5, abs=0.6)
        assert top + centre_y * (bottom - top) == pytest.approx(y + 0.5, abs=0.6)


SIDES = st.one_of(st.integers(1, 40), st.integers(1, 700))
FIELDS = st.one_of(
    st.fixed_dictionaries(
        {
            "mode": st.just("crop"),
            "image_size": st.tuples(st.integers(1, 50), st.integers(1, 50)),
            "crop_fraction": st.floats(0.2, 1.0),
        }
    ),
    st.fixed_dictionaries(
        {
            "mode": st.just("fit_shortest"),
            "image_size": st.tuples(st.integers(1, 40), st.integers(1, 40)),
            "multiple_of": st.integers(1, 16),
        }
    ),
    st.fixed_dictionaries(
        {
            "mode": st.sampled_from(["squash", "fit_longest"]),
            "image_size": st.tuples(st.integers(1, 50), st.integers(1, 50)),
        }
    ),
)


@given(FIELDS, SIDES, SIDES)
def test_any_size_gives_a_view_from_inside_the_photo(fields, width, height):
    transform = make(filter="nearest", **fields)
    left, top, right, bottom = transform.crop_box(width, height)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    seen = transform.view(Image.new("RGB", (width, height), WHITE))
    assert min(seen.size) >= 1
    assert seen.getextrema() == ((255, 255),) * 3  # nothing of it was padded with black
    if transform.mode in ("crop", "squash"):
        assert (seen.height, seen.width) == transform.image_size
    else:
        assert (left, top, right, bottom) == (0, 0, width, height)
        assert seen.width % transform.multiple_of == seen.height % transform.multiple_of == 0
    assert Preprocess.from_dict(json.loads(json.dumps(transform.to_dict()))) == transform


@pytest.mark.parametrize("photo", [(1, 1), (12_000, 10), (10, 12_000)])
@pytest.mark.parametrize("mode", ["crop", "squash", "fit_longest"])
def test_extreme_shapes(photo, mode, monkeypatch):
    transform = make(mode=mode)
    resize, sizes = Image.Image.resize, []

    def recorded(self, size, *arguments, **options):
        sizes.append(size)
        return resize(self, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    tensor = transform(Image.new("RGB", photo, RED))
    assert min(tensor.shape) >= 1
    colours = colours_of(transform, tensor)
    torch.testing.assert_close(colours.amin((1, 2)), torch.tensor([1.0, 0.0, 0.0]))
    assert [width * height < 2**25 for width, height in sizes] == [True]  # memory stays bounded


def test_fit_shortest_of_extreme_shapes():
    transform = make(mode="fit_shortest", image_size=(8, 8), multiple_of=4)
    assert transform.view(Image.new("RGB", (12_000, 10))).size == (9600, 8)
    assert transform.view(Image.new("RGB", (1, 1))).size == (8, 8)
    assert make(mode="fit_shortest", image_size=(4, 4), multiple_of=16)(noise(3, 2)).shape == (
        (3, 16, 16)
    )
    with pytest.raises(BadImageError, match="in mode fit_shortest it becomes"):
        make(mode="fit_shortest").view(Image.new("RGB", (100_000, 1)))


@pytest.mark.parametrize("filter", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
@pytest.mark.parametrize("photo", [(901, 7), (7, 901)])
def test_cutting_a_long_strip_first_changes_nothing_that_is_seen(monkeypatch, filter, photo):
    transform = make(filter=filter, image_size=(61, 61), crop_fraction=0.9)
    # smooth: nearest takes a neighbour where the two ways of counting differ in the last digit
    across, down = np.meshgrid(np.arange(photo[0]), np.arange(photo[1]))
    waves = np.stack([np.sin(across / 3 + k) * np.cos(down / 4 + k) for k in range(3)], axis=2)
    image = Image.fromarray((127.5 + 120 * waves).astype(np.uint8))
    whole = np.asarray(transform.view(image)).astype(int)
    monkeypatch.setattr("minivit.preprocess._MOST_PIXELS", 0)
    cut = np.asarray(transform.view(image)).astype(int)
    assert abs(whole - cut).max() <= (2 if filter not in ("nearest", "box") else 45)
    assert (whole == cut).mean() > 0.97


# --- numbers ---------------------------------------------------------------------------------


def test_values_are_those_of_the_formula():
    transform = make(mode="squash", image_size=(2, 3))
    image = noise(3, 2)
    result = transform(image)
    assert result.dtype == torch.float32 and result.is_contiguous()
    mean, std = np.float32(MEAN), np.float32(STD)
    expected = (np.asarray(image).astype(np.float32) / np.float32(255) - mean) / std
    np.testing.assert_array_equal(result.numpy(), expected.transpose(2, 0, 1))


def test_the_photo_is_left_alone():
    image = noise(30, 20)
    before = image.tobytes()
    transform = make(image_size=(20, 20))
    transform(image).zero_()
    transform.view(image).paste(0, (0, 0, 20, 20))
    make(mode="squash", image_size=(20, 30)).view(image).paste(0, (0, 0, 30, 20))
    assert image.tobytes() == before


@pytest.mark.parametrize("changes", [*MODES, {"mean": (0, 0.5, 1), "filter": "box"}])
def test_a_dictionary_brings_it_back(changes):
    transform = make(**changes)
    values = json.loads(json.dumps(transform.to_dict()))
    assert values == transform.to_dict()  # lists already, as JSON gives them back
    assert Preprocess.from_dict(values) == transform
    assert hash(Preprocess.from_dict(values)) == hash(transform)


def test_unknown_and_missing_fields_are_named():
    values = make().to_dict()
    with pytest.raises(
        ValueError, match=r"unknown preprocess field interpolation; valid: .*filter, "
    ):
        Preprocess.from_dict(values | {"interpolation": "bicubic"})
    assert Preprocess.from_dict({k: v for k, v in values.items() if k != "crop_rounding"})
    del values["crop_fraction"]
    with pytest.raises(
        ValueError, match=r"missing preprocess field crop_fraction; valid: .*image_"
    ):
        Preprocess.from_dict(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (0, 224)}, "preprocess image_size is .*above 0"),
        ({"image_size": 224}, "preprocess image_size is 224"),
        ({"image_size": (224.0, 224)}, "preprocess image_size is .*expected"),
        ({"image_size": (224, 224, 3)}, "preprocess image_size is .*expected"),
        ({"mode": "border"}, "preprocess mode is 'border': choose from crop, squash"),
        ({"filter": "cubic"}, "preprocess filter is 'cubic': choose from nearest, bilinear"),
        ({"crop_fraction": 0.0}, "preprocess crop_fraction is 0.0"),
        ({"crop_fraction": 1.1}, "preprocess crop_fraction is 1.1"),
        ({"crop_fraction": "0.9"}, "preprocess crop_fraction is '0.9'"),
        (
            {"crop_fraction": 0.9, "mode": "fit_shortest"},
            "crop_fraction is 0.9, expected 1.0 in mode fit_shortest",
        ),
        ({"crop_rounding": "up"}, "preprocess crop_rounding is 'up': choose from even, down"),
        ({"mean": (0.5, 0.5)}, "preprocess mean is "),
        ({"mean": (0.5, 0.5, float("nan"))}, "preprocess mean is "),
        ({"std": (0.5, 0.0, 0.5)}, "preprocess std is .*above 0"),
        ({"std": (0.5, "0.5", 0.5)}, "preprocess std is "),
        ({"std": (0.5, 0.5, float("inf"))}, "preprocess std is "),
        ({"multiple_of": 0}, "preprocess multiple_of is 0"),
        ({"multiple_of": True}, "preprocess multiple_of is True"),
        ({"multiple_of": 16, "mode": "fit_longest"}, "preprocess multiple_of is 16, expected 1"),
        ({"multiple_of": 14, "image_size": (224, 225)}, "multiples of multiple_of=14"),
    ],
)
def test_impossible_fields_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


# --- side by side with the code that trained the weights -------------------------------------

PHOTOS = [(300, 200), (200, 300), (640, 427), (333, 500), (501, 499), (37, 23), (224, 224), (9, 91)]


@pytest.mark.parity
@pytest.mark.parametrize("filter", ["bilinear", "bicubic", "nearest", "lanczos"])
@pytest.mark.parametrize(("size", "fraction"), [(224, 0.875), (224, 0.9), (96, 1.0), (97, 0.965)])
def test_equal_to_torchvision_bit_for_bit(size, fraction, filter):
    pytest.importorskip("torchvision")
    from torchvision import transforms

    theirs = transforms.Compose(
        [
            transforms.Resize(int(size / fraction), transforms.InterpolationMode(filter)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    ours = make(image_size=(size, size), crop_fraction=fraction, filter=filter)
    for photo in PHOTOS:
        image = noise(*photo)
        assert torch.equal(ours(image), theirs(image)), photo


@pytest.mark.parity
@pytest.mark.parametrize("size", [(224, 224), (96, 160), (160, 96)])
@pytest.mark.parametrize(("mode", "fraction"), [("crop", 0.9), ("crop", 1.0), ("squash", 1.0)])
def test_equal_to_timm_bit_for_bit(size, mode, fraction):
    pytest.importorskip("timm")
    from timm.data import create_transform

    theirs = create_transform(
        (3, *size),
        interpolation="bicubic",
        mean=MEAN,
        std=STD,
        crop_pct=fraction,
        crop_mode="squash" if mode == "squash" else "center",
    )
    ours = make(image_size=size, mode=mode, crop_fraction=fraction)
    for photo in PHOTOS:
        image = noise(*photo)
        assert torch.equal(ours(image), theirs(image)), photo


# --- grey --------------------------------------------------------------------------------------


def grey(**changes) -> Preprocess:
    return make(mean=(0.4,), std=(0.2,), image_size=(32, 48), **changes)


def test_one_number_as_mean_makes_grey_pictures():
    """0.299 R + 0.587 G + 0.114 B, rounded (ITU-R BT.601, Pillow's L), before the resize."""
    picture = noise(60, 40)
    red, green, blue = np.asarray(picture).astype(float).transpose(2, 0, 1)
    levels = np.asarray(picture.convert("L"))
    assert np.abs(levels - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 0.51
    preprocess = grey(crop_fraction=0.9)
    view = preprocess.view(picture)
    assert view.mode == "L" and view.size == (48, 32)
    assert view.tobytes() == preprocess.view(picture.convert("L")).tobytes()
    x = preprocess(picture)
    assert x.shape == (1, 32, 48) and x.dtype == torch.float32
    torch.testing.assert_close(x[0], (torch.from_numpy(np.array(view)) / 255 - 0.4) / 0.2)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16"])
def test_a_grey_file_keeps_its_levels_in_any_mode(mode):
    levels = np.arange(32 * 48, dtype=np.uint32).reshape(32, 48) % 256
    picture = Image.fromarray(levels.astype(np.uint8))
    if mode == "I;16":
        picture = Image.fromarray((levels * 257).astype(np.uint16))
    else:
        picture = picture.convert(mode)
    view = grey(mode="squash").view(picture)
    assert np.array_equal(np.asarray(view), levels)


def test_a_long_strip_in_grey_is_resized_where_it_is_seen():
    view = grey().view(noise(20_000, 4))
    assert view.mode == "L" and view.size == (48, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5, 0.5)}, "mean is .*3 finite numbers, or 1 for grey"),
        ({"mean": (0.5,)}, "std is .*1 finite numbers above 0, as many as mean has"),
        ({"std": (0.5,)}, "std is .*3 finite numbers above 0, as many as mean has"),
        ({"mean": (0.5,), "std": (0.0,)}, "std is"),
    ],
)
def test_means_and_deviations_come_in_equal_numbers(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_the_number_of_channels_is_that_of_the_means():
    assert grey().channels == 1 and make().channels == 3
    assert Preprocess.from_dict(grey().to_dict()) == grey()
