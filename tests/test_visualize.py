"""The picture command: what it draws, where it writes, and what it says about bad input."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import minivit
import visualize
from minivit.captioner import Captioner
from minivit.commands import pictures
from minivit.config import CaptionerConfig, ResNetConfig
from minivit.explain import position_scores, position_similarity
from minivit.resnet import ResNet
from minivit.tokenizer import WordLevel
from minivit.viz.panels import Box
from minivit.weights import SHIPPED
from minivit.word_maps import BestMap

DEBUG = "debug_patch8_64"

Calls = list[SimpleNamespace]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model: 8 × 8 patches, 2 blocks, 2 heads, 10 labels."""
    torch.manual_seed(0)
    labels = [f"label {number}" for number in range(10)]
    model = minivit.VisionTransformer(minivit.ViTConfig.from_name(DEBUG), labels=labels)
    torch.nn.init.normal_(model.head.weight)
    for block in model.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.5)  # attention far from uniform
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    minivit.save_model(model, path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replaces the drawing by a small empty figure, and records what was to be drawn."""
    calls = []

    def attention_figure(photo: Image.Image, box: Box, maps: torch.Tensor, **others: Any) -> Figure:
        calls.append(SimpleNamespace(photo=photo, box=box, maps=maps, **others))
        return Figure(figsize=(0.2, 0.2))

    monkeypatch.setattr("minivit.viz.attention_figure", attention_figure)
    return calls


def attention(*words: object) -> int:
    return visualize.main(["attention", *map(str, words)])


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on standard error: it must be a single line."""
    captured = capsys.readouterr()
    assert captured.err.endswith("\n") and captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    return captured.err


# ---- the command itself -----------------------------------------------------------------------


def test_help_does_not_wait_for_torch() -> None:
    script = (
        "import sys, visualize\n"
        "for word in ('attention', 'positions', 'caption', 'explain', 'model', ''):\n"
        "    try: visualize.main([word, '--help'] if word else ['--help'])\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "slow = {'torch', 'matplotlib', 'numpy', 'PIL', 'tqdm'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    root = Path(visualize.__file__).parent
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--patch ROW,COL" in done.stdout and "--align {predicts,reads}" in done.stdout


def test_without_arguments_a_scene_is_drawn_with_the_shipped_weights(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    weights: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SHIPPED, "scenes", weights)
    assert visualize.main([]) == 0
    out = Path("runs/visualize/scene.png")
    captured = capsys.readouterr()
    remark = "drawn by small.safetensors, shipped with minivit"
    assert captured.out == f"{out}: {remark}\n" and captured.err == ""
    assert os.listdir("runs/visualize") == ["scene.png"]
    with Image.open(out) as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 1000
    before = out.read_bytes()
    assert visualize.main([]) == 0
    assert out.read_bytes() == before


def test_a_scene_is_shown_larger_than_the_model_sees_it_but_the_same(
    weights: Path, tmp_path: Path, drawn: Calls
) -> None:
    picture = pictures.built_in_scene((64, 64), 3)
    assert picture.seen.size == (64, 64) and picture.photo.size == (512, 512)
    shrunk = picture.photo.resize((64, 64), Image.Resampling.BOX)
    apart = np.abs(np.asarray(shrunk, dtype=float) - np.asarray(picture.seen, dtype=float))
    another = pictures.built_in_scene((64, 64), 4).seen
    mistaken = np.abs(np.asarray(shrunk, dtype=float) - np.asarray(another, dtype=float))
    assert apart.mean() < 12 < 30 < mistaken.mean()

    assert attention("--weights", weights, "--out", tmp_path, "--seed", 3) == 0
    (call,) = drawn
    assert call.box == pytest.approx((0, 0, 512, 512)) and call.photo.size == (512, 512)
    assert call.photo_title.startswith("built-in scene 3: ")


# ---- what is drawn ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def looks_at_bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose class token looks at the patch that is brighter than all others.

    Channel 0 of a token is the brightness of its patch, from about -2.5 (black) to 2.5 and more;
    the key is that channel, the query is the same for all tokens.
    """
    config = minivit.ViTConfig.from_name(DEBUG, depth=1)
    model = minivit.VisionTransformer(config)
    attn = model.blocks[0].attn
    with torch.no_grad():
        for parameter in (model.patch_embed.proj.weight, attn.qkv.weight, model.pos_embed):
            parameter.zero_()
        model.patch_embed.proj.weight[0] = 10 / (3 * 8 * 8)
        model.patch_embed.proj.bias[0] = 7.5
        model.patch_embed.proj.bias[1] = 1
        model.cls_token[0, 0, 0] = -2.5
        for head in range(2):
            attn.qkv.bias[16 * head] = 8
            attn.qkv.weight[32 + 16 * head, 0] = 1
    path = tmp_path_factory.mktemp("weights") / "bright.safetensors"
    minivit.save_model(model, path)
    return path


# Size of the photo, flags, and (left, top, width, height) in the photo of cell (2, 5), by hand. A
# crop is the middle square in 8 × 8 cells; a whole photo has round(8 · side / shorter side) cells.
# 360 × 640 is resized to 64 × 113 (113.8 cut) and cropped from row 24 (24.5, half to even).
ALIGNMENT = [
    ((600, 400), [], (100 + 5 * 50, 100, 50, 50)),
    ((400, 400), [], (250, 100, 50, 50)),
    ((360, 640), [], (225, (24 + 2 * 8) * 640 / 113, 45, 8 * 640 / 113)),
    ((600, 400), ["--whole"], (250, 100, 50, 50)),
    ((360, 640), ["--whole"], (225, 2 * 640 / 14, 45, 640 / 14)),
]


@pytest.mark.parametrize(("size", "flags", "place"), ALIGNMENT)
def test_attention_to_a_bright_patch_is_painted_on_that_patch(
    size: tuple[int, int],
    flags: list[str],
    place: tuple[float, ...],
    tmp_path: Path,
    looks_at_bright: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y, wide, high = place
    bright = Image.new("RGB", size)
    inner = (x + wide / 4, y + high / 4, x + 3 * wide / 4, y + 3 * high / 4)
    bright.paste((255, 255, 255), tuple(round(edge) for edge in inner))
    bright.save(tmp_path / "bright.png")

    figures = []
    write = pictures.write_figure
    monkeypatch.setattr(
        pictures,
        "write_figure",
        lambda f, *rest, **more: (figures.append(f), write(f, *rest, **more)),
    )
    words = [tmp_path / "bright.png", "--weights", looks_at_bright, "--out", tmp_path / "out"]
    assert attention(*words, *flags) == 0

    # Yellow in the file that was written: the top of the colour map, over grey.
    drawn = np.asarray(Image.open(tmp_path / "out" / "bright.png").convert("RGB")).astype(int)
    yellow = drawn[..., 0] + drawn[..., 1] - 2 * drawn[..., 2] > 120
    axes = figures[0].axes[1]
    frame = axes.get_window_extent()
    rows, cols = np.nonzero(yellow)
    here = (cols >= frame.x0) & (cols < frame.x1)
    here &= (len(drawn) - rows > frame.y0) & (len(drawn) - rows <= frame.y1)
    rows, cols = rows[here], cols[here]
    back = axes.transData.inverted().transform
    left, top = back((cols.min(), len(drawn) - rows.min()))
    right, bottom = back((cols.max() + 1, len(drawn) - rows.max() - 1))
    pixel = (axes.get_xlim()[1] - axes.get_xlim()[0]) / frame.width
    expected = (x, y, x + wide, y + high)
    assert (left, top, right, bottom) == pytest.approx(expected, abs=1.5 * pixel)
    assert here.sum() == pytest.approx(wide * high / pixel**2, rel=0.05)  # and nothing between


@pytest.mark.parametrize("flags", [[], ["--whole"]])
@pytest.mark.parametrize("block", [0, -1])
def test_the_maps_are_those_of_the_block_and_the_patch_that_are_given(
    tmp_path: Path, photo: Path, drawn: Calls, flags: list[str], block: int
) -> None:
    config = minivit.ViTConfig.from_name(DEBUG, distillation_token=True, num_register_tokens=3)
    torch.manual_seed(1)
    model = minivit.VisionTransformer(config).eval()
    path = tmp_path / "prefixes.safetensors"
    minivit.save_model(model, path)
    words = [photo, "--weights", path, "--out", tmp_path / "out", "--block", block, *flags]
    assert attention(*words) == 0
    assert attention(*words, "--patch", "3,6", "--overwrite") == 0

    # The photo is 3:2, so that the whole of it is 8 × 12 patches.
    cols = 12 if flags else 8
    picture = Image.open(photo)
    if flags:
        image = picture.resize((96, 64), Image.Resampling.BICUBIC)
    else:
        image = picture.resize((96, 64), Image.Resampling.BICUBIC).crop((16, 0, 80, 64))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        _, attentions = model((pixels - 0.5) / 0.5, return_attention=True)
    for call, token in zip(drawn, (0, 5 + 3 * cols + 6), strict=True):
        expected = attentions[block][0, :, token, 5:].reshape(2, 8, cols)
        torch.testing.assert_close(call.maps, expected, atol=1e-5, rtol=1e-4)
        assert call.num_tokens == 5 + 8 * cols
    assert drawn[0].patch is None and drawn[1].patch == (3, 6)
    expected_box = (0, 0, 120, 80) if flags else (20, 0, 100, 80)
    assert drawn[0].box == pytest.approx(expected_box)


# The region by hand: 451 × 300 pixels are resized to 96 × 64 (96.2 cut), and the crop starts at
# column 16; 512 × 512 is cropped nowhere. A whole photo of 3:2 has 8 × 12 patches.
FREE_PHOTOS = [
    ("cat", (451, 300), (16 * 451 / 96, 0, 80 * 451 / 96, 300), (8, 12)),
    ("coffee", (600, 400), (100, 0, 500, 400), (8, 12)),
    ("astronaut", (512, 512), (0, 0, 512, 512), (8, 8)),
]


@pytest.mark.parametrize(("name", "size", "region", "grid"), FREE_PHOTOS)
def test_real_photos_are_shown_whole_and_their_maps_where_they_lie(
    name: str,
    size: tuple[int, int],
    region: tuple[float, ...],
    grid: tuple[int, int],
    tmp_path: Path,
    drawn: Calls,
    weights: Path,
) -> None:
    path = Path(visualize.__file__).parent / "tutorials" / "photos" / f"{name}.jpg"
    assert attention(path, "--weights", weights, "--out", tmp_path) == 0
    assert attention(path, "--weights", weights, "--out", tmp_path / "whole", "--whole") == 0
    cropped, whole = drawn
    assert cropped.photo.size == whole.photo.size == size
    assert cropped.box == pytest.approx(region) and cropped.maps.shape == (2, 8, 8)
    assert whole.box == pytest.approx((0, 0, *size)) and whole.maps.shape == (2, *grid)


def test_patch_may_still_be_called_query(
    tmp_path: Path, photo: Path, drawn: Calls, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [photo, "--weights", weights, "--out", tmp_path / "out"]
    assert attention(*words, "--patch", "3,6") == attention(*words, "--query", "3,6") == 0
    new, old = drawn
    assert old.patch == new.patch == (3, 6) and torch.equal(old.maps, new.maps)
    assert capsys.readouterr().err == ""


def test_weights_may_be_the_name_of_shipped_ones(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    photo: Path,
    drawn: Calls,
    captioned: Calls,
    weights: Path,
    captioner_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(SHIPPED, "scenes", weights)
    monkeypatch.setitem(SHIPPED, "scenes_captioner", captioner_weights)
    for command, calls, name in (
        (attention, drawn, "scenes"),
        (caption, captioned, "scenes_captioner"),
    ):
        path = SHIPPED[name]
        for given in (name, path):
            assert command(photo, "--weights", given, "--out", tmp_path / command.__name__) == 0
        by_name, by_path = calls
        assert by_name.heading == by_path.heading and path.name in by_name.heading
    assert torch.equal(drawn[0].maps, drawn[1].maps)
    assert captioned[0].caption.text == captioned[1].caption.text

    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    assert attention(photo, "--weights", "./scenes", "--out", tmp_path / "out") == 2
    assert "scenes: no such file" in complaint(capsys)


def test_titles_name_the_run_of_the_weights_and_those_that_are_shipped(
    tmp_path: Path, photo: Path, drawn: Calls, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tmp_path / "pets" / "best.safetensors"
    best.parent.mkdir()
    best.write_bytes(weights.read_bytes())
    out = tmp_path / "out"
    assert attention(photo, "--weights", best, "--out", out) == 0
    assert capsys.readouterr().out == f"{out / 'photo.png'}\n"
    assert attention(photo, "--out", out, "--overwrite") == 0
    shipped = "scenes.safetensors, shipped with minivit"
    assert capsys.readouterr().out == f"{out / 'photo.png'}: drawn by {shipped}\n"
    ours, theirs = (call.heading.splitlines()[-1] for call in drawn)
    assert ours == "weights: pets/best.safetensors" and theirs == f"weights: {shipped}"


def test_titles_say_what_is_shown(tmp_path: Path, photo: Path, drawn: Calls, weights: Path) -> None:
    words = [photo, "--weights", weights, "--out", tmp_path / "out", "--overwrite"]
    assert attention(*words, "--heads", "1,0", "--smooth") == 0
    assert attention(*words, "--heads", "all", "--block", "0", "--patch", "3,5") == 0
    model = minivit.load_model(weights)
    with torch.no_grad():
        odds = model(model.preprocess(Image.open(photo))[None]).softmax(-1)[0]
    best = int(odds.argmax())
    first, second = drawn
    assert first.photo_title == f"photo.png\npredicted: label {best} ({100 * odds[best]:.1f}%)"
    assert "block 1 (of 0–1)" in first.heading and "block 0 (of 0–1)" in second.heading
    assert "class token" in first.heading and "patch row 3, col 5" in second.heading
    assert "small.safetensors" in first.heading
    assert first.heads == (1, 0) and second.heads is None
    assert first.smooth is True and second.smooth is False


def test_every_kind_of_picture_comes_out_upright(
    tmp_path: Path, drawn: Calls, weights: Path
) -> None:
    base = Image.effect_noise((90, 60), 80).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    sixteen = Image.fromarray(np.asarray(base.convert("L")).astype(np.uint16) * 257)
    kinds = {
        "cmyk.jpg": lambda p: base.convert("CMYK").save(p),
        "palette.png": lambda p: base.convert("P").save(p),
        "turned.jpg": lambda p: base.transpose(Image.Transpose.ROTATE_90).save(p, exif=exif),
        "sixteen.png": sixteen.save,
        "alpha.webp": lambda p: base.convert("RGBA").save(p),
        "first.gif": lambda p: base.save(p, save_all=True, append_images=[base, base]),
        "speck.bmp": lambda p: base.resize((3, 2)).save(p),  # smaller than a patch
    }
    for name, save in kinds.items():
        save(tmp_path / name)
    out = tmp_path / "out"
    assert attention(*(tmp_path / name for name in kinds), "--weights", weights, "--out", out) == 0
    assert sorted(os.listdir(out)) == sorted(f"{name.split('.')[0]}.png" for name in kinds)
    for call in drawn:
        assert call.photo.width * 2 == call.photo.height * 3 and call.photo.mode == "RGB"


def test_positions_of_a_grid_that_is_not_square(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = minivit.VisionTransformer(minivit.ViTConfig.from_name(DEBUG, image_size=(32, 56)))
    minivit.save_model(model, tmp_path / "w.safetensors")
    words = ["--weights", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "out")]
    assert visualize.main(["positions", *words]) == 0
    path = tmp_path / "out" / "positions.png"
    scores = position_scores(position_similarity(model))
    assert capsys.readouterr().out == f"{path}\n{scores}\n"
    assert f"{100 * scores.neighbours:.1f} % of the places" in str(scores)
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.width > picture.height > 300


def test_all_positions_of_a_large_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def positions_figure(similarity: torch.Tensor, **others: Any) -> Figure:
        calls.append(SimpleNamespace(grid=tuple(similarity.shape[:2]), **others))
        return Figure(figsize=(0.2, 0.2))

    monkeypatch.setattr("minivit.viz.positions_figure", positions_figure)
    config = minivit.ViTConfig.from_name(DEBUG, image_size=(128, 32))
    minivit.save_model(minivit.VisionTransformer(config), tmp_path / "w.safetensors")
    words = [
        "--weights",
        str(tmp_path / "w.safetensors"),
        "--out",
        str(tmp_path / "out"),
        "--overwrite",
    ]
    for extra in ([], ["--all"]):
        assert visualize.main(["positions", *words, *extra]) == 0
    assert [(call.grid, call.all_patches) for call in calls] == [((16, 4), False), ((16, 4), True)]
    assert all("16 × 4 patches" in call.heading for call in calls)


# ---- where it is written ----------------------------------------------------------------------


def test_equal_stems_do_not_overwrite_one_another(
    tmp_path: Path, drawn: Calls, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["one/cat.png", "two/cat.jpg", "one/cat-2.png", "two/CAT.webp"]
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20)).save(path)
    out = tmp_path / "out"
    assert attention(*paths, "--weights", weights, "--out", out) == 0
    written = capsys.readouterr().out.split()
    expected = ["cat.png", "cat-2.png", "cat-2-2.png", "CAT-3.png"]
    assert written == [str(out / name) for name in expected]
    assert sorted(os.listdir(out)) == sorted(expected)


def test_an_input_is_never_overwritten(
    photo: Path, drawn: Calls, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = photo.read_bytes()
    assert attention(photo, "--weights", weights, "--out", photo.parent) == 2
    assert "photo.png: is an input" in complaint(capsys)
    assert photo.read_bytes() == before and drawn == []


@pytest.mark.parametrize(
    ("error", "status"), [(OSError(errno.ENOSPC, "No space left"), 2), (KeyboardInterrupt(), 130)]
)
def test_what_was_there_stays_when_writing_fails(
    error: BaseException,
    status: int,
    tmp_path: Path,
    photo: Path,
    drawn: Calls,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop_half_way(figure: Figure, path: str, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(Figure, "savefig", stop_half_way)
    out = tmp_path / "out"
    out.mkdir()
    (out / "photo.png").write_bytes(b"before")
    assert attention(photo, "--weights", weights, "--out", out, "--overwrite") == status
    assert os.listdir(out) == ["photo.png"] and (out / "photo.png").read_bytes() == b"before"
    line = complaint(capsys)
    assert status == 130 or ("photo.png" in line and "No space left" in line)


# ---- bad input --------------------------------------------------------------------------------


def test_bad_pictures_are_named_and_the_others_come_out(
    tmp_path: Path, photo: Path, drawn: Calls, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:500])
    (tmp_path / "words.jpg").write_text("not a picture")
    bad = [tmp_path / name for name in ("empty.jpg", "missing.jpg", "cut.png", "words.jpg")]
    out = tmp_path / "out"
    words = [*bad[:2], photo, *bad[2:], "--weights", weights, "--out", out]
    assert attention(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'photo.png'}\n" and os.listdir(out) == ["photo.png"]
    lines = captured.err.splitlines()
    assert len(lines) == 4
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"error: {path}: ")


def test_a_picture_that_only_the_model_cannot_take_is_named_too(
    tmp_path: Path, photo: Path, drawn: Calls, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("1", (2_000_000, 1)).save(tmp_path / "line.png")
    words = [tmp_path / "line.png", photo, "--weights", weights, "--out", tmp_path / "out"]
    assert attention(*words, "--whole") == 2
    assert complaint(capsys).startswith(f"error: {tmp_path / 'line.png'}: ")
    assert os.listdir(tmp_path / "out") == ["photo.png"]


def test_weights_that_are_no_numbers_draw_nothing(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = minivit.VisionTransformer(minivit.ViTConfig.from_name(DEBUG))
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    damaged, out = tmp_path / "damaged.safetensors", tmp_path / "out"
    minivit.save_model(model, damaged)
    assert attention(photo, "--weights", damaged, "--out", out) == 2
    assert complaint(capsys).startswith(
        f"error: {damaged}: head.weight holds 1 NaN or infinite of "
    )
    assert not out.exists()


@pytest.mark.parametrize("command", ["attention", "explain", "explore"])
def test_a_strip_that_would_take_for_ever_is_named_before_it_does(
    command: str, tmp_path: Path, photo: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """4000 x 40 is a hundred of the model's own pictures, and ten thousand times the work."""
    strip, out = tmp_path / "strip.png", tmp_path / ("out.html" if command == "explore" else "out")
    Image.new("RGB", (4000, 40)).save(strip)
    more = ["--methods", "attention"] if command == "explain" else []
    words = [strip, photo, "--weights", weights, "--out", out, "--whole", *more]
    assert visualize.main([command, *map(str, words)]) == 2
    message = complaint(capsys)
    assert message.startswith(f"error: {strip}: a photo of 4000 x 40 becomes 8 x 800 patches, 100 ")
    assert "10,000 times as long" in message
    assert out.exists()  # the other photo came out


def test_a_panorama_is_shown_as_a_whole(tmp_path: Path, drawn: Calls, weights: Path) -> None:
    Image.new("RGB", (640, 64)).save(tmp_path / "panorama.png")
    words = [tmp_path / "panorama.png", "--weights", weights, "--out", tmp_path / "out"]
    assert attention(*words, "--whole") == 0 and drawn[0].maps.shape[1:] == (8, 80)


@pytest.mark.parametrize("stem", ["a" * 251, "a" * 255, "é" * 127, "本" * 83])
def test_names_as_long_as_a_name_can_be_get_their_figures(
    tmp_path: Path, photo: Path, drawn: Calls, weights: Path, stem: str
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:  # of equal stems the second gets a number
        folder.mkdir()
        (folder / stem).write_bytes(photo.read_bytes())
    words = [folder / stem for folder in folders]
    assert attention(*words, photo, "--weights", weights, "--out", tmp_path / "out") == 0
    names = sorted(os.listdir(tmp_path / "out"))
    assert len(names) == 3 and "photo.png" in names and sum("-2.png" in name for name in names) == 1


def test_a_figure_whose_place_is_taken_does_not_stop_the_others(
    tmp_path: Path, photo: Path, drawn: Calls, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "first.png").mkdir(parents=True)
    (tmp_path / "first.jpg").write_bytes(photo.read_bytes())
    words = [tmp_path / "first.jpg", photo, "--weights", weights, "--out", tmp_path / "out"]
    assert attention(*words) == 2
    assert complaint(capsys).startswith(
        f"error: {tmp_path / 'out' / 'first.png'}: cannot be written"
    )
    assert (tmp_path / "out" / "photo.png").is_file()


def test_a_photo_that_goes_away_between_two_does_not_stop_the_others(
    tmp_path: Path,
    photo: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "last.png").write_bytes(photo.read_bytes())

    def attention_figure(*_: Any, **__: Any) -> Figure:
        (tmp_path / "last.png").unlink(missing_ok=True)  # while the first is drawn
        return Figure(figsize=(0.2, 0.2))

    monkeypatch.setattr("minivit.viz.attention_figure", attention_figure)
    words = [photo, tmp_path / "last.png", "--weights", weights, "--out", tmp_path / "out"]
    assert attention(*words) == 2
    assert "last.png: no such file" in complaint(capsys)
    assert os.listdir(tmp_path / "out") == ["photo.png"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--block", "99"], "--block 99: {weights} has blocks 0 to 1"),
        (["--block", "-3"], "--block -3: {weights} has blocks 0 to 1"),
        (["--heads", "0,99"], "--heads 99: {weights} has heads 0 to 1"),
        (["--patch", "99,0"], "--patch 99,0: the patches are a grid of 8 rows x 8 cols"),
        (["--patch", "0,8"], "choose from 0,0 to 7,7"),
        (["--weights", "missing.safetensors"], "missing.safetensors: no such file"),
        (["--weights", "cut.safetensors"], "cut.safetensors: "),
        (["--weights", "other.safetensors"], "other.safetensors: "),
        (["--out", "file"], "choose another --out"),
        (["--out", "file/deeper"], "file/deeper/photo.png: cannot be written"),
    ],
)
def test_a_bad_choice_is_one_line(
    flags: list[str],
    says: str,
    tmp_path: Path,
    photo: Path,
    drawn: Calls,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    Path("cut.safetensors").write_bytes(weights.read_bytes()[:20_000])
    save_file({"conv1.weight": torch.ones(2)}, "other.safetensors")
    Path("file").write_text("in the way")
    there = sorted(os.listdir())
    # One line, however many photos; of flags that are given twice the second counts.
    assert attention(photo, photo, "--weights", weights, "--out", "out", *flags) == 2
    assert says.format(weights=weights) in complaint(capsys)
    assert sorted(os.listdir()) == there and Path("file").read_text() == "in the way"


@pytest.mark.parametrize(
    "flags",
    [
        ["--patch", "3"],
        ["--patch", "a,b"],
        ["--patch=-1,0"],
        ["--patch", "1,2,3"],
        ["--heads", "first"],
        ["--heads", "0,"],
        ["--heads=-1"],
        ["--block", "last"],
        ["--smooth", "--cells"],
    ],
)
def test_a_malformed_flag_is_one_line(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        attention("photo.png", *flags)
    assert stop.value.code == 2
    assert flags[-1].split("=")[0] in complaint(capsys)


def test_in_whole_photos_the_grid_is_each_photos_own(
    tmp_path: Path, drawn: Calls, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("wide.png", (120, 80)), ("high.png", (80, 120))):
        Image.new("RGB", size).save(tmp_path / name)
    words = [tmp_path / "high.png", tmp_path / "wide.png", "--weights", weights]
    assert attention(*words, "--out", tmp_path / "out", "--whole", "--patch", "2,11") == 2
    line = complaint(capsys)
    assert str(tmp_path / "high.png") in line and "12 rows x 8 cols" in line
    assert os.listdir(tmp_path / "out") == ["wide.png"]


def test_a_model_without_class_token_asks_for_a_patch(
    tmp_path: Path, photo: Path, drawn: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    config = minivit.ViTConfig.from_name(DEBUG, class_token=False, pooling="mean")
    path = tmp_path / "mean.safetensors"
    minivit.save_model(minivit.VisionTransformer(config), path)
    words = [photo, "--weights", path, "--out", tmp_path / "out"]
    assert attention(*words) == 2
    line = complaint(capsys)
    assert str(path) in line and "--patch" in line
    assert attention(*words, "--patch", "7,7") == 0


def test_debug_shows_the_traceback(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(minivit.BadImageError):
        attention(tmp_path / "missing.jpg", "--weights", weights, "--debug")


# ---- caption ----------------------------------------------------------------------------------

WORDS = ["a", "red", "circle", "above", "the", "blue", "star"]


@pytest.fixture(scope="module")
def captioner_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random captioner: 8 × 8 patches, 2 decoder blocks of 2 heads, 7 words."""
    torch.manual_seed(23)  # words vary, and a wider search finds others
    config = CaptionerConfig(
        backbone=minivit.ViTConfig.from_name(DEBUG, num_classes=0),
        vocabulary_size=4 + len(WORDS),
        max_length=8,
        dim=32,
        num_heads=2,
        hidden_dim=64,
        encoder_depth=1,
        decoder_depth=2,
        head_dim=32,
    )
    model = Captioner(config, WordLevel(WORDS)).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(2)  # maps far from uniform, different from word to word
        model.pos_embed.normal_()
        model.word_embed.weight.normal_()
        model.head[2].weight.normal_(std=0.2)
        model.head[2].bias[:4] = -99  # words only
    path = tmp_path_factory.mktemp("weights") / "captioner.safetensors"
    minivit.save_model(model, path)
    return path


@pytest.fixture
def captioned(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replaces the drawing by a small empty figure, and records what was to be drawn."""
    calls = []

    def caption_figure(photo: Image.Image, caption: object, **others: Any) -> Figure:
        calls.append(SimpleNamespace(photo=photo, caption=caption, **others))
        return Figure(figsize=(0.2, 0.2))

    monkeypatch.setattr("minivit.viz.caption_figure", caption_figure)
    return calls


def caption(*words: object) -> int:
    return visualize.main(["caption", *map(str, words)])


def test_a_caption_is_drawn_and_printed_beside_the_name_of_its_picture(
    tmp_path: Path, photo: Path, captioner_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert caption(photo, "--weights", captioner_weights, "--out", out) == 0
    (expected,) = minivit.load_model(captioner_weights).caption([Image.open(photo)])
    assert len(expected.words) == 7 and len(set(expected.tokens)) > 2
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'photo.png'}: {expected.text}\n" and captured.err == ""
    with Image.open(out / "photo.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 1000
    before = (out / "photo.png").read_bytes()
    assert caption(photo, "--weights", captioner_weights, "--out", out) == 0
    assert (out / "photo.png").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "options", "heading"),
    [
        ([], {}, "block 1 (of 0–1), mean over heads (no scores stored), the step that predicts"),
        (["--block", "0", "--head", "1"], {"block": 0, "head": 1}, "block 0 (of 0–1), head 1,"),
        (["--layer", "0"], {"block": 0}, "block 0 (of 0–1), mean"),
        (["--align", "reads"], {"align": "reads"}, "the step that reads the word"),
        (["--beam-size", "3", "--max-length", "5"], {"beam_size": 3, "max_length": 5}, "block 1"),
        (["--sample", "4"], {"sample": 4}, "weights: captioner.safetensors, sample 4\n"),
        (
            ["--sample", "4", "--temperature", "5", "--top-p", "0.9", "--top-k", "3"],
            {"sample": 4, "temperature": 5.0, "top_p": 0.9, "top_k": 3},
            ", sample 4, temperature 5.0, top-p 0.9, top-k 3\n",
        ),
    ],
)
def test_the_flags_choose_sentence_and_maps(
    flags: list[str],
    options: dict[str, Any],
    heading: str,
    tmp_path: Path,
    photo: Path,
    captioned: Calls,
    captioner_weights: Path,
) -> None:
    words = [photo, "--weights", captioner_weights, "--out", tmp_path / "out"]
    assert caption(*words, *flags) == 0
    captioner = minivit.load_model(captioner_weights)
    (expected,) = captioner.caption([Image.open(photo)], **options)
    (plain,) = captioner.caption([Image.open(photo)])
    assert not options or not torch.equal(expected.attention, plain.attention)
    if "beam_size" in options:
        assert expected.token_ids != plain.token_ids[:4]
    (call,) = captioned
    assert call.caption.token_ids == expected.token_ids
    assert torch.equal(call.caption.attention, expected.attention)
    assert call.caption.box == expected.box == pytest.approx((20, 0, 100, 80))  # the middle square
    assert call.photo.size == (120, 80)
    assert call.heading.startswith("photo.png; weights: captioner.safetensors")
    assert heading in call.heading
    assert call.layout is None and call.relative is False


def test_a_sentence_of_ones_own_is_drawn(
    tmp_path: Path,
    photo: Path,
    captioned: Calls,
    captioner_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [photo, "--weights", captioner_weights, "--out", tmp_path / "out"]
    assert caption(*words, "--text", "the red star", "--block", "0") == 0
    captioner = minivit.load_model(captioner_weights)
    (expected,) = captioner.caption_text([Image.open(photo)], "the red star", block=0)
    (call,) = captioned
    assert call.caption.log_probs == expected.log_probs and call.caption.text == "the red star"
    assert torch.equal(call.caption.attention, expected.attention)
    assert "; --text" in call.heading
    assert capsys.readouterr().out.endswith(": the red star\n")
    for flags, message in (
        (["--text", "a red umbrella"], "no word of this captioner: umbrella"),
        (["--text", "a star", "--beam-size", "2"], "--text 'a star': the sentence is given"),
        (["--text", "a star", "--sample", "2"], "--text 'a star': the sentence is given"),
    ):
        assert caption(*words, *flags) == 2
        assert message in complaint(capsys)


def test_the_map_is_the_one_that_the_weights_recommend(
    tmp_path: Path, photo: Path, captioned: Calls, captioner_weights: Path
) -> None:
    captioner = minivit.load_model(captioner_weights, expected=Captioner)
    captioner.best_maps = (
        BestMap("all", "predicts", 0, 1, 0.75, 0.1),
        BestMap("all", "reads", 1, 0, 0.5, 0.1),
    )
    path = tmp_path / "measured.safetensors"
    minivit.save_model(captioner, path)
    words = [photo, "--weights", path, "--out", tmp_path / "out", "--overwrite"]
    for flags, options, title in (
        ([], {"block": 0, "head": 1}, "head 1 (its best: 75% of words hit)"),
        (["--align", "reads"], {"align": "reads", "block": 1, "head": 0}, "head 0 (its best: 50%"),
        (["--block", "0"], {"block": 0}, "mean over heads, the step"),
        (["--head", "0"], {"head": 0}, "head 0, the step"),
    ):
        assert caption(*words, *flags) == 0
        (expected,) = captioner.caption([Image.open(photo)], **options)
        assert torch.equal(captioned[-1].caption.attention, expected.attention)
        assert title in captioned[-1].heading


def test_the_flags_choose_the_page(
    tmp_path: Path, photo: Path, captioned: Calls, captioner_weights: Path
) -> None:
    words = [photo, "--weights", captioner_weights, "--out", tmp_path / "out"]
    assert caption(*words, "--layout", "4x5", "--relative") == 0
    assert captioned[0].layout == (4, 5) and captioned[0].relative is True


def test_without_a_picture_a_scene_is_captioned_by_the_shipped_captioner(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    captioned: Calls,
    captioner_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SHIPPED, "scenes_captioner", captioner_weights)
    assert caption("--seed", 3) == 0
    (call,) = captioned
    scene = pictures.built_in_scene((64, 64), 3)
    (expected,) = minivit.load_model(captioner_weights).caption([scene.seen])
    assert call.caption.text == expected.text and call.photo.size == (512, 512)
    assert expected.box == (0, 0, 64, 64) and call.caption.box == (0, 0, 512, 512)
    assert call.heading.startswith("built-in scene 3: ")
    path = Path("runs/visualize/caption/scene.png")
    assert capsys.readouterr().out == f"{path}: {expected.text}\n" and path.is_file()


def test_a_captioner_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "captioner.safetensors"
    monkeypatch.setitem(SHIPPED, "scenes_captioner", missing)
    assert caption("--out", tmp_path / "out") == 2
    assert f"{missing}: no such file" in complaint(capsys)


def test_captions_of_good_pictures_come_out_beside_bad_ones(
    tmp_path: Path,
    photo: Path,
    captioned: Calls,
    captioner_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "words.jpg").write_text("not a picture")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "photo.jpg").write_bytes(photo.read_bytes())
    out = tmp_path / "out"
    bad = [tmp_path / "words.jpg", tmp_path / "missing.jpg"]
    words = [bad[0], photo, bad[1], tmp_path / "again" / "photo.jpg"]
    assert caption(*words, "--weights", captioner_weights, "--out", out) == 2
    captured = capsys.readouterr()
    text = captioned[0].caption.text
    written = [out / "photo.png", out / "photo-2.png"]
    assert captured.out == "".join(f"{path}: {text}\n" for path in written)
    assert sorted(os.listdir(out)) == ["photo-2.png", "photo.png"]
    lines = captured.err.splitlines()
    assert len(lines) == 2
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"error: {path}: ")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--block", "2"], "--block 2: {weights} takes numbers from -2 to 1"),
        (["--layer", "-3"], "--block -3: {weights} takes numbers from -2 to 1"),
        (["--head", "2"], "--head 2: {weights} takes numbers from 0 to 1"),
        (["--head=-1"], "--head -1: {weights} takes numbers from 0 to 1"),
        (["--beam-size", "0"], "--beam-size 0: {weights} takes numbers from 1 to 5"),
        (["--max-length", "9"], "--max-length 9: {weights} takes numbers from 2 to 8"),
        (["--sample", "1", "--beam-size", "2"], "--sample 1 --beam-size 2: a sentence is either"),
        (["--temperature", "2"], "--temperature: only where words are drawn by chance; add --sam"),
        (["--top-k", "2", "--top-p", "0.5"], "--top-p, --top-k: only where words are drawn"),
    ],
)
def test_a_choice_that_the_captioner_does_not_have_is_one_line(
    flags: list[str],
    says: str,
    tmp_path: Path,
    photo: Path,
    captioned: Calls,
    captioner_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [photo, photo, "--weights", captioner_weights, "--out", tmp_path / "out"]
    assert caption(*words, *flags) == 2
    assert says.format(weights=captioner_weights) in complaint(capsys)
    assert captioned == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--layout", "4"],
        ["--layout", "0x4"],
        ["--layout", "4x21"],
        ["--layout", "axb"],
        ["--align", "writes"],
        ["--layer", "last"],
        ["--sample=-1"],
        ["--sample", str(2**63)],
        ["--temperature", "0"],
        ["--temperature", "nan"],
        ["--temperature", "warm"],
        ["--top-p", "0"],
        ["--top-p", "1.5"],
        ["--top-k", "0"],
        ["--top-k", "2.5"],
    ],
)
def test_a_malformed_flag_of_caption_is_one_line(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        caption("photo.png", *flags)
    assert stop.value.code == 2
    assert flags[0].split("=")[0] in complaint(capsys)


def test_weights_of_another_kind_are_refused_with_the_command_that_takes_them(
    tmp_path: Path,
    photo: Path,
    weights: Path,
    captioner_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    resnet = tmp_path / "resnet.safetensors"
    small = ResNet(ResNetConfig(depth=50))
    minivit.save_model(small, resnet, dtype=torch.float16)
    for command, path, says in (
        ("caption", weights, "holds a VisionTransformer, caption needs a Captioner; use "
         "visualize.py attention, explain, explore, ablate, doctor, positions or model"),
        ("attention", captioner_weights, "holds a Captioner, attention needs a VisionTransformer; "
         "use visualize.py caption, explore or ablate"),
        ("positions", captioner_weights, "use visualize.py caption, explore or ablate"),
        ("caption", resnet, "holds a ResNet, caption needs a Captioner; give other weights"),
    ):  # fmt: skip
        words = [command, *([] if command == "positions" else [str(photo)])]
        words += ["--weights", str(path), "--out", str(tmp_path / "out")]
        assert visualize.main(words) == 2
        assert complaint(capsys).rstrip().endswith(says)
    assert not (tmp_path / "out").exists()
