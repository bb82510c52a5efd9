"""The page's scripts that compute, run by node where there is one: without a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import minivit
from minivit.explorer.document import _PAGE, NUMERICS
from minivit.weights import find_weights

# Reads a checkpoint and a photo's pixels, and prints what the model sees and says of them.
_MAIN = """
const fs = require("fs");
const { weights, pixels, width, height, kernel } = JSON.parse(fs.readFileSync(0, "utf8"));
const file = fs.readFileSync(weights), bytes = kernel && fs.readFileSync(kernel);
const engine = new Engine();
const checkpoint = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
const opened = engine.open({ checkpoint, kernel: bytes });
const photo = { pixels: new Uint8Array(pixels), width, height, channels: 3 };
const seen = engine.view({ picture: photo });
const pass = engine.run({ picture: seen, changes: {} });
const said = { by: opened.kernel, seen: [...seen.pixels], logits: [...pass.logits] };
console.log(JSON.stringify(said));
"""


@pytest.mark.parametrize("by", ["WebAssembly", "JavaScript"])
def test_a_photo_gets_the_logits_that_torch_gives_it(by: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node here")
    script = tmp_path / "page.js"
    parts = [(_PAGE / name).read_text(encoding="utf-8") for name in NUMERICS]
    script.write_text("\n".join([*parts, _MAIN]), encoding="utf-8")
    model = minivit.load_model("scenes")
    photo = minivit.open_image("tutorials/photos/cat.jpg").resize((150, 100))
    given = {
        "weights": str(find_weights("scenes")),
        "pixels": np.asarray(photo).ravel().tolist(),
        "width": photo.width,
        "height": photo.height,
        "kernel": str(_PAGE / "kernel.wasm") if by == "WebAssembly" else None,
    }
    done = subprocess.run(
        [node, str(script)], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert answer["by"] == by
    assert answer["seen"] == np.asarray(model.preprocess.view(photo)).ravel().tolist()
    with torch.inference_mode():
        expected = model(model.preprocess(photo)[None])[0]
    np.testing.assert_allclose(answer["logits"], expected, atol=1e-4)
