"""The example of docs/attention.md runs as it stands, and its comments say the shapes."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import minivit

PAGE = (Path(__file__).parents[2] / "docs" / "attention.md").read_text(encoding="utf-8")
(EXAMPLE,) = (
    block
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    if "AttentionRows" in block
)

Sides = tuple[int, int]


@pytest.mark.parametrize(
    ("trained", "shown", "options"),
    [
        ((32, 32), (32, 32), {}),
        ((72, 72), (32, 32), {"num_register_tokens": 4}),  # DINOv2: positions for more patches
        ((32, 48), (48, 32), {"distillation_token": True}),  # as many patches, another grid
    ],
)
def test_the_example_runs_with_every_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: Sides,
    shown: Sides,
    options: dict[str, Any],
) -> None:
    torch.manual_seed(0)
    config = minivit.ViTConfig.from_name("debug_patch8_32", image_size=trained, **options)
    preprocess = minivit.Preprocess(
        image_size=shown, mode="crop", filter="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    model = minivit.VisionTransformer(config, preprocess=preprocess)
    minivit.save_model(model, tmp_path / "vit.safetensors")
    Image.effect_noise((90, 60), 60).convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)

    grid = {"rows": shown[0] // 8, "cols": shown[1] // 8}
    length = config.num_prefix_tokens + grid["rows"] * grid["cols"]
    scope: dict[str, Any] = {}
    compared = []
    example = EXAMPLE.replace('"scenes"', '"vit.safetensors"')
    example = example.replace("tutorials/photos/coffee.jpg", "photo.jpg")
    assert example.count("vit.safetensors") == example.count("photo.jpg") == 1
    for statement in ast.parse(example).body:
        exec(compile(ast.Module([statement], []), "attention.md", "exec"), scope)
        comment = EXAMPLE.splitlines()[statement.lineno - 1].partition("# ")[2]
        match = re.match(r"\(1(, \w+)+\)", comment)
        if match and isinstance(statement, ast.Assign):
            name = ast.unparse(statement.targets[0])
            shape = eval(match[0], {"heads": config.num_heads, "N": length, **grid})
            assert scope[name].shape == shape, ast.unparse(statement)
            compared.append(name)
    assert compared == ["heat", "flow", "heat", "heads"]
    assert scope["attentions"].grid_size == (grid["rows"], grid["cols"])
