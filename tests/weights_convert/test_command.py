"""`python -m weights_convert`, as somebody types it: what it prints, writes and refuses."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save_file

from minivit import load_model, save_model
from tests.references.seeded import seeded
from tests.weights_convert.test_conversion import make_model, weights
from weights_convert import catalogue
from weights_convert.__main__ import main

TOP = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error, status 2."""
    try:
        status = main(list(arguments))
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    assert status == 2 and captured.out == ""
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err
    return captured.err


# ---- a file --------------------------------------------------------------------------------------


def test_a_file_becomes_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(weights(image_size=(32, 48)), "mine.pth")
    arguments = ["mine.pth", "-o", "out/mine.safetensors", "--num-heads", "2"]
    assert main([*arguments, "--image-size", "32x48"]) == 0
    printed = capsys.readouterr().out
    count = sum(tensor.numel() for tensor in weights(image_size=(32, 48)).values())
    assert f"mine.pth: timm, {count:,} parameters, 2 blocks of width 32, 2 heads" in printed
    assert "patches of 8x8, 32x48 pixels, 10 outputs" in printed
    assert "assumed: photos as most" in printed and "wrote out/mine.safetensors" in printed
    model = load_model("out/mine.safetensors")
    assert model.grid_size == (4, 6)
    assert torch.equal(model.state_dict()["norm.weight"], weights()["norm.weight"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.safetensors"]


def test_without_o_it_goes_to_weights(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(weights(), "mine.pth")
    assert main(["mine.pth", "--num-heads", "2", "--quiet"]) == 0
    assert load_model("weights/mine.safetensors").config.num_heads == 2
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_the_way_back(capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model()
    save_model(model, "mine.safetensors")
    assert main(["mine.safetensors", "--to", "timm", "-o", "home.pth"]) == 0
    assert "wrote home.pth: 32 tensors by timm's names" in capsys.readouterr().out
    found = torch.load("home.pth", weights_only=True)
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.pth"], "nowhere.pth: no such file; check the path"),
        (["./no/such/weights.npz"], "weights.npz: no such file; check the path"),
        (["vit_smal_patch16_384"], "vit_small_patch16_384"),
        (["text.pth"], "text.pth: not a checkpoint that torch can read"),
        (["mine.pth"], "give --num-heads"),
        (["mine.pth", "--num-heads", "2", "--format", "jaxx"], "choose from catr, resnet, jax"),
        (["mine.pth", "--num-heads", "2", "--format", "jax"], "tensors that do not belong"),
        (["mine.pth", "--num-heads", "0"], "argument --num-heads"),
        (["mine.pth", "--image-size", "big"], "'big': expected HEIGHTxWIDTH"),
        (["mine.pth", "--num-heads", "2", "--activation", "swish"], "choose from gelu"),
        (["mine.pth", "--num-heads", "2", "--labels", "none.txt"], "none.txt: no such file"),
        (["mine.pth", "--num-heads", "2", "-o", "text.pth/x.safetensors"], "text.pth"),
        (["mine.pth", "--to", "timm"], "mine.pth"),
        (["mine.pth", "--to", "timm", "--name", "x"], "--name does not apply to --to"),
        (["mine.pth", "--num-heads", "2", "--name", "vit_giant_banana"], "no published model of"),
        (["mine.pth", "--num-heads", "2", "--vocab", "text.pth"], "--vocab does not apply"),
        (["mine.pth", "--num-heads", "2", "--vocab", "missing.txt"], "missing.txt: no such file"),
        (["mine.pth", "--pooling", "max"], "argument --pooling: invalid choice"),
        (["mine.pth", "--which", "ema"], "no such set of weights"),
        ([], "give a file or a name, or --list"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(weights(), "mine.pth")
    Path("text.pth").write_text("not weights\n" * 10)
    before = sorted(tmp_path.rglob("*"))
    assert message in refusal(capsys, *arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(FileNotFoundError):
        main(["nowhere.pth", "--debug"])


def test_help_and_list_do_not_wait_for_torch() -> None:
    code = (
        "import sys; sys.argv[1:] = [{!r}]; from weights_convert.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    for flag in ("--help", "--list"):
        result = subprocess.run(
            [sys.executable, "-c", code.format(flag)],
            cwd=TOP,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "vit_small_patch16_384" in result.stdout


def test_the_list_can_be_piped() -> None:
    process = subprocess.run(
        f"{sys.executable} -m weights_convert --list | head -1",
        shell=True,
        cwd=TOP,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.split() == ["name", "source", "parameters", "size", "licence"]
    assert process.stderr == ""


# ---- a name --------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the files of `content`, all else is missing."""

    content: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        body = self.content.get(self.path.lstrip("/"))
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on this machine; the proxies of the environment are not asked."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Hub, "content", {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def publish(
    monkeypatch: pytest.MonkeyPatch, hub: str, name: str, entry: str, content: bytes
) -> None:
    """Moves an entry of the catalogue to the server."""
    Hub.content = Hub.content | {entry: content}
    known = catalogue.find(name)
    moved = dataclasses.replace(
        known,
        address=f"{hub}/{entry}",
        sha256=hashlib.sha256(content).hexdigest() if known.sha256 else "",
    )
    monkeypatch.setattr(catalogue, "_entries", lambda: {known.name: moved})


def test_a_name_is_downloaded_checked_and_converted(
    hub: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = make_model(name="vit_small_patch16_384", depth=1)
    save_file(dict(model.state_dict()), tmp_path / "published")
    content = (tmp_path / "published").read_bytes()
    publish(monkeypatch, hub, "vit_small_patch16_384", "model.safetensors", content)
    assert main(["vit_small_patch16_384"]) == 0
    name = "vit_small_patch16_384.augreg_in21k_ft_in1k"
    converted = load_model(f"weights/{name}.safetensors")
    assert converted.config.num_heads == 6 and converted.preprocess.crop_fraction == 1.0
    pictures = seeded("pictures", (1, 3, 384, 384), 0)
    with torch.no_grad():
        torch.testing.assert_close(converted(pictures), model(pictures), atol=1e-5, rtol=0)
    assert (tmp_path / "cache" / "minivit").is_dir()
    monkeypatch.setattr(Hub, "content", {})  # the second time it comes from the cache
    assert main([name, "-o", "again.safetensors"]) == 0
    assert (
        Path("again.safetensors").read_bytes() == Path(f"weights/{name}.safetensors").read_bytes()
    )
    capsys.readouterr()


def test_pretrained_vits_name(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.weights_convert.test_formats import stored

    buffer = io.BytesIO()
    torch.save(stored("lukemelas").weights, buffer, _use_new_zipfile_serialization=False)
    publish(monkeypatch, hub, "B_16_imagenet1k", "B_16_imagenet1k.pth", buffer.getvalue())
    assert main(["B_16_imagenet1k", "--num-heads", "2", "--image-size", "32x48"]) == 0
    assert load_model("weights/B_16_imagenet1k.safetensors").preprocess.mode == "squash"


def test_a_corrupt_download_leaves_nothing(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(monkeypatch, hub, "vit_b_16", "vit_b_16.pth", b"what was published")
    Hub.content = {"vit_b_16.pth": b"what came instead!"}
    line = refusal(capsys, "vit_b_16", "--quiet")
    assert f"{hub}/vit_b_16.pth" in line
    assert not list(tmp_path.rglob("*.pth")) and not Path("weights").exists()


def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(monkeypatch, "http://127.0.0.1:9", "B_16_imagenet1k", "B_16_imagenet1k.pth", b"")
    line = refusal(capsys, "B_16_imagenet1k", "--quiet")
    place = tmp_path / "cache/minivit/downloads/B_16_imagenet1k/B_16_imagenet1k.pth"
    assert "http://127.0.0.1:9/B_16_imagenet1k.pth" in line and os.fspath(place) in line
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(weights(), place)  # as somebody who was told to does
    assert main(["B_16_imagenet1k", "--format", "timm", "--num-heads", "2", "--quiet"]) == 0


def test_a_missing_page_is_one_line(
    hub: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(monkeypatch, hub, "B_16", "B_16.pth", b"x")
    Hub.content = {}
    assert "404" in refusal(capsys, "B_16", "--quiet")
