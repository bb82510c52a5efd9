"""The table of maps: made from planted maps and masks it says what was planted, twice the same."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.real_maps import HEAD, Scores, main, make_table, maps_of, score
from minivit.config import ViTConfig
from minivit.data.scenes.dataset import make_scene
from minivit.explain import rollout
from minivit.vit import VisionTransformer

ROOT = Path(__file__).parents[1]


def tiny(seed: int = 0) -> VisionTransformer:
    """Three prefix tokens, a grid of 2 x 3, two heads."""
    torch.manual_seed(seed)
    config = ViTConfig(
        image_size=(16, 24),
        patch_size=(8, 8),
        dim=32,
        depth=3,
        num_heads=2,
        hidden_dim=64,
        num_classes=0,
        activation="gelu",
        layer_norm_eps=1e-6,
        num_register_tokens=2,
    )
    return VisionTransformer(config).eval()


@pytest.fixture(scope="module")
def maps() -> dict[str, Tensor]:
    with torch.inference_mode():
        return maps_of(tiny(), torch.randn(4, 3, 16, 24), [tiny(1), tiny(2)], seed=0)


def test_every_map_lies_on_the_grid_and_a_random_one_comes_once_a_draw(
    maps: dict[str, Tensor],
) -> None:
    for name, values in maps.items():
        assert values.shape == (4, 2 if "random" in name else 1, 2, 3), name
        assert torch.isfinite(values).all() and (values >= 0).all(), name
    assert [name for name in maps if name.startswith(HEAD)] == [f"{HEAD}0", f"{HEAD}1"]
    assert not torch.equal(*maps["class token, last block, all weights random"].unbind(1))
    assert not torch.equal(*maps["class token, q and k of the last block random"].unbind(1))


def test_maps_are_the_rows_of_the_class_token_without_the_prefix() -> None:
    model, images = tiny(), torch.randn(4, 3, 16, 24)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        maps = maps_of(model, images, [tiny(1)], seed=0)
        tokens, attentions = model.encode(images, return_attention=True)
        block = model.blocks[-1]
        inputs = model.embed(images)
        for earlier in model.blocks[:-1]:
            inputs, _ = earlier(inputs)
        values = block.attn.qkv(block.norm1(inputs))[..., 64:].reshape(4, 9, 2, 16)
    row = attentions[-1][:, :, 0, 3:].reshape(4, 2, 2, 3)

    def equals(name: str, expected: Tensor) -> None:
        torch.testing.assert_close(maps[name][:, 0], expected.reshape(4, 2, 3))

    equals("class token, last block, mean of heads", row.mean(1))
    equals(f"{HEAD}1", row[:, 1])
    equals("class token, block 1, mean of heads", attentions[1][:, :, 0, 3:].mean(1))
    equals("rollout, ½ residual, mean of heads", rollout(attentions)[:, 0, 3:])
    lengths = values.norm(dim=-1)[:, 3:].permute(0, 2, 1).reshape(4, 2, 2, 3)
    equals("class token weighted by the values' norm", (row * lengths).mean(1))
    cosine = torch.cosine_similarity(tokens[:, :1], tokens[:, 3:], dim=-1)
    equals("cosine of class and patch outputs", cosine - cosine.amin(1, keepdim=True))
    assert not block.attn.qkv._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_first_component_has_the_sign_of_the_class_token(maps: dict[str, Tensor]) -> None:
    model = tiny()
    torch.manual_seed(5)
    images = torch.randn(4, 3, 16, 24)
    with torch.inference_mode():
        made = maps_of(model, images, [tiny(1)], seed=0)
        tokens = model.encode(images)
    patches = tokens[:, 3:] - tokens[:, 3:].mean(1, keepdim=True)
    for photo in range(4):
        covariance = patches[photo].T @ patches[photo]
        direction = torch.linalg.eigh(covariance.double()).eigenvectors[:, -1].float()
        direction = direction * torch.sign(tokens[photo, 0] @ direction)
        along = tokens[photo, 3:] @ direction
        component = made["first principal component of patch outputs"][photo, 0].flatten()
        torch.testing.assert_close(component, along - along.min(), atol=1e-4, rtol=1e-4)


def test_a_planted_map_scores_what_was_planted() -> None:
    """The peak is on the object, on a cell of 0.4 object, beside it; a flat map is the area."""
    shares = torch.tensor([[[1.0, 0.4, 0.0]]])
    peaks = 2 * torch.tensor([[6.0, 2, 2], [2, 6, 2], [2, 2, 6], [0, 0, 0]]).reshape(1, 4, 1, 3)
    scores = score(peaks, shares)
    assert scores.hits.tolist() == [[1, 0, 0, 1]]  # of equal cells the first
    assert scores.mass[0].tolist() == pytest.approx([0.68, 0.44, 0.28, 1.4 / 3])


def test_a_head_is_scored_on_photos_on_which_it_was_not_chosen() -> None:
    """Each head is right on one half only: chosen there, it is wrong on the other half."""
    count = 20
    halves = torch.from_numpy(np.random.default_rng(0).permutation(count)).tensor_split(2)
    first, second = (torch.zeros(count, 1).double() for _ in range(2))
    first[halves[0]], second[halves[1]] = 1, 1
    results = {f"{HEAD}0": Scores(first, first), f"{HEAD}1": Scores(second, second)}
    results = {"class token, last block, mean of heads": Scores(first, first), **results}
    lines, chosen = make_table(results, torch.rand(count, 2, 3), seed=0)
    assert lines[3].name == "class token, last block, the head chosen on the other half"
    assert lines[3].pointing == lines[3].mass == (0, 0, 0)
    assert chosen == "head 1 and head 0"
    assert lines[1].pointing[0] == 0.5


def test_the_interval_holds_the_mean_and_narrows_with_the_photos() -> None:
    """Of a share of one half: 1.96 standard errors are 0.098 for 100 photos, 0.031 for 1,000."""
    widths = []
    for count in (100, 1000):
        half = (torch.arange(count) % 2).double()[:, None]
        lines, _ = make_table({f"{HEAD}0": Scores(half, half)}, torch.rand(count, 2, 3), seed=0)
        value, low, high = lines[0].pointing
        assert value == 0.5 and low < value < high
        widths.append((high - low) / 2)
    assert widths == [pytest.approx(0.098, rel=0.1), pytest.approx(0.031, rel=0.1)]


def test_the_interval_of_random_weights_holds_what_their_draws_differ_by() -> None:
    """Two draws, one always right and one never: the mean of two of them is 0, a half or 1."""
    draws = torch.tensor([[0.0, 1.0]]).double().expand(50, 2)
    one = torch.ones(50, 1).double()
    results = {f"{HEAD}0": Scores(one, one), "random": Scores(draws, draws)}
    lines, _ = make_table(results, torch.rand(50, 2, 3), seed=0)
    assert lines[0].pointing == (1, 1, 1)
    (random,) = (line for line in lines if line.name == "random")
    assert random.pointing == random.mass == (0.5, 0, 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Five scenes of 3:2 and the masks of their main objects."""
    photos, masks = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("masks")
    for index in range(5):
        scene = make_scene(0, index, image_size=(66, 99))
        scene.image.save(photos / f"{index}.png")
        Image.fromarray(scene.objects[0].mask.astype(np.uint8)).save(masks / f"{index}.png")
    words = ["--photos", str(photos), "--masks", str(masks), "--weights", "scenes"]
    return [*words, "--size", "64", "--draws", "2", "--batch-size", "2"]


def test_the_command_writes_what_it_prints_and_the_same_again(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []
    for name in ("first", "second"):
        assert main([*folders, "--out", str(tmp_path / name)]) == 0
        text = (tmp_path / name / "table.md").read_text(encoding="utf-8")
        assert capsys.readouterr().out == text
        written.append((text, (tmp_path / name / "table.csv").read_text(encoding="utf-8")))
    assert written[0] == written[1]
    text, table = written[0]
    assert text.startswith("5 photos. Model: `scenes`") and str(tmp_path) not in text
    rows = list(csv.DictReader(table.splitlines()))
    assert len(rows) == 1 + 3 + 1 + 3 + 9  # mean, heads, choice, earlier blocks, the others
    for row in rows:
        printed = next(line for line in text.splitlines() if line.startswith(f"| {row['map']} |"))
        percents = [float(number) for number in re.findall(r"\d+\.\d", printed.split("|", 2)[2])]
        figures = [float(figure) for name, figure in row.items() if name != "map"]
        assert percents == pytest.approx([100 * figure for figure in figures], abs=0.051)
        for value, low, high in (figures[:3], figures[3:]):
            assert 0 <= low <= value <= high <= 1, row


def test_a_part_of_the_photos_is_taken_evenly(
    folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*folders, "--limit", "2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("2 photos.") and "--limit 2" in text


def test_bad_input_is_answered_in_one_line(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        (["--weights", "scenes_captioner"], "no Vision Transformer with a class token"),
        (["--masks", str(tmp_path)], "5 photos of 5 without a mask"),
        (["--size", "60"], "60"),
        (["--draws", "0"], "--draws is below 1"),
    ]
    for words, message in cases:
        assert main([*folders, *words]) == 2
        captured = capsys.readouterr()
        error = captured.err.strip().splitlines()[-1]
        assert error.startswith("error: ") and message in error and not captured.out


def test_every_figure_of_the_page_on_maps_stands_in_a_table() -> None:
    """The tables are made again after each training: no figure beside them stays behind."""
    section = (ROOT / "docs" / "maps.md").read_text(encoding="utf-8")
    values: set[str] = set()
    for name in ("scores_scenes", "scores_pets", "scores_pets_costly"):
        text = (ROOT / "benchmarks" / f"{name}.md").read_text(encoding="utf-8")
        values |= set(re.findall(r"\| \**(\d+\.\d) \(", text))
        (count,) = re.findall(r"^(\d+) (?:photos|built-in scenes)", text, re.MULTILINE)
        assert re.search(rf"\b{count} (?:photos|scenes)\b", section), f"{name}: {count}"
    values.add("66.7")  # of 111 photos right: train.py's report, in pets_sgd.toml
    figures = re.findall(r"\d+\.\d", section)
    assert len(figures) >= 80 and set(figures) <= values, set(figures) - values
