"""Training a captioner: what counts in the loss, which weights move, what is written down."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import train as command
from minivit import load_model
from minivit.captioner import Captioner
from minivit.config import ResNetConfig
from minivit.data.captions import CaptionBatch
from minivit.data.scenes import SHAPES, make_scene
from minivit.training import caption_run
from minivit.training.caption_loop import (
    CaptionSettings,
    caption_loss,
    evaluate,
    make_optimizers,
    rate,
    train,
)
from minivit.training.caption_recipes import CAPTION_RECIPES
from minivit.training.grounding import best, ground
from tests.test_captioner import make_captioner

CPU = torch.device("cpu")
SETTINGS = CaptionSettings(epochs=2, batch_size=4, lr=1e-3, clip=1.0)


def batches(_epoch: int = 0, *, number: int = 3) -> Iterable[CaptionBatch]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(number):
        images = torch.randint(0, 256, (4, 3, 32, 48), dtype=torch.uint8, generator=generator)
        tokens = torch.randint(4, 12, (4, 7), generator=generator)
        tokens[:, 0], tokens[0, 5:], tokens[1, 3:] = 1, 0, 0
        yield CaptionBatch(images, None, tokens)


# ---- the loss -----------------------------------------------------------------------------------


def test_padding_counts_for_nothing() -> None:
    logits, targets = torch.randn(2, 5, 12), torch.randint(4, 12, (2, 5))
    targets[0, 2:] = 0
    expected = F.cross_entropy(
        torch.cat([logits[0, :2], logits[1]]), torch.cat([targets[0, :2], targets[1]])
    )
    torch.testing.assert_close(caption_loss(logits, targets, 0), expected)
    changed = logits.clone()
    changed[0, 2:] = 50.0
    torch.testing.assert_close(caption_loss(changed, targets, 0), expected)


def test_label_smoothing_is_torchs() -> None:
    logits, targets = torch.randn(2, 5, 12), torch.randint(4, 12, (2, 5))
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=0.1)
    torch.testing.assert_close(caption_loss(logits, targets, 0, 0.1), expected)


def test_evaluation_counts_every_word_once() -> None:
    """The same figures, however the captions lie in batches."""
    captioner = make_captioner()
    found = next(iter(batches(number=1)))
    whole = evaluate(captioner, [found], CPU)
    singles = [
        CaptionBatch(found.images[i : i + 1], None, found.tokens[i : i + 1]) for i in range(4)
    ]
    assert evaluate(captioner, singles, CPU) == pytest.approx(whole, rel=1e-5)


def test_padded_pictures_are_masked() -> None:
    """Padding of a batch reaches the captioner as a mask; without padding there is none."""
    captioner = make_captioner(backbone=ResNetConfig(depth=50, dilate_last_stage=True))
    images, mask = torch.zeros(1, 3, 48, 64), torch.zeros(1, 48, 64, dtype=torch.bool)
    images[..., :32] = torch.randn(1, 3, 48, 32)
    mask[..., :32] = True
    tokens = torch.randint(4, 12, (1, 6))
    masked = evaluate(captioner, [CaptionBatch(images, mask, tokens)], CPU)[0]
    assert masked != evaluate(captioner, [CaptionBatch(images, None, tokens)], CPU)[0]
    full = torch.ones_like(mask)
    plain = evaluate(captioner, [CaptionBatch(images, full, tokens)], CPU)[0]
    assert plain == evaluate(captioner, [CaptionBatch(images, None, tokens)], CPU)[0]


# ---- steps --------------------------------------------------------------------------------------


def test_a_captioner_learns_its_captions() -> None:
    torch.manual_seed(0)
    captioner = make_captioner(dropout=0.0)
    settings = CaptionSettings(epochs=25, batch_size=4, lr=3e-3, backbone_lr=1e-3, clip=1.0)
    epochs = list(train(captioner, batches, batches, settings, steps_per_epoch=3, device=CPU))
    assert epochs[-1].train_loss < 0.4 * epochs[0].train_loss
    assert epochs[-1].val_accuracy > 0.8 > epochs[0].val_accuracy
    assert [epoch.epoch for epoch in epochs] == list(range(1, 26))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_frozen_backbone_stays(optimizer: str) -> None:
    captioner = make_captioner()
    before = {name: tensor.clone() for name, tensor in captioner.state_dict().items()}
    settings = CaptionSettings(epochs=1, batch_size=4, lr=1e-3, optimizer=optimizer)
    list(train(captioner, batches, batches, settings, steps_per_epoch=3, device=CPU))
    for name, tensor in captioner.state_dict().items():
        same = torch.equal(tensor, before[name])
        assert same == (name.startswith("backbone.") or "tokens" in name), name


def test_rates_of_catr() -> None:
    """AdamW, backbone at a tenth, its stem and first stage never; a tenth of all after lr_drop."""
    captioner = make_captioner(backbone=ResNetConfig(depth=50))
    recipe = CAPTION_RECIPES["catr_coco"].settings
    optimizers = make_optimizers(captioner, recipe)
    assert len(optimizers) == 1
    rest, backbone = optimizers[0].param_groups
    assert (rest["lr"], backbone["lr"], rest["weight_decay"]) == (1e-4, 1e-5, 1e-4)
    moving = {name for name, p in captioner.named_parameters() if p.requires_grad}
    assert "backbone.conv1.weight" not in moving and "backbone.layer2.0.conv1.weight" in moving
    assert not any(name.startswith("backbone.layer1") for name in moving)
    assert len(rest["params"]) + len(backbone["params"]) == len(moving)
    assert [rate(epoch * 10, 10, recipe) for epoch in (0, 19, 20, 29)] == [1, 1, 0.1, 0.1]
    assert (recipe.clip, recipe.epochs, recipe.batch_size) == (0.1, 30, 32)


def test_a_cosine_with_a_warm_up() -> None:
    settings = CaptionSettings(epochs=2, batch_size=1, lr=1.0, warmup=0.1)
    shares = [rate(step, 50, settings) for step in range(100)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert shares[55] == pytest.approx(0.5) and shares[99] < 0.001
    assert max(shares) == 1.0


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    captioner = make_captioner()
    with torch.no_grad():
        captioner.head[2].bias[4] = math.inf
    with pytest.raises(
        ValueError, match=r"the loss is nan at step 1 of 6 with learning rate 0.001"
    ):
        next(train(captioner, batches, batches, SETTINGS, steps_per_epoch=3, device=CPU))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"lr": 0.0}, "lr is 0.0 and backbone_lr 0.0"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd': choose from adamw, muon"),
        ({"schedule": "linear"}, "schedule is 'linear': choose from cosine, step"),
    ],
)
def test_impossible_settings_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CaptionSettings(**({"epochs": 1, "batch_size": 1, "lr": 1.0} | changes))


# ---- where words look ---------------------------------------------------------------------------


class Pointer(Captioner):
    """Looks at the top left cell when it predicts, whatever it sees; one head at the last cell."""

    def decode(self, tokens, memory, **options):  # type: ignore[no-untyped-def]
        logits, words, _ = super().decode(tokens, memory, **options)
        weights = torch.zeros(len(tokens), 4, tokens.shape[1], memory.tokens.shape[1])
        weights[:, :3, :, 0] = 1.0
        weights[:, 3, :, -1] = 1.0
        return logits, words, [weights] * self.config.decoder_depth


def scene_captioner(kind: type[Captioner] = Captioner) -> Captioner:
    captioner = caption_run.make_captioner(
        CAPTION_RECIPES["scenes_captioner"], weights=None, vocabulary=None, scenes=True
    )
    new = kind(captioner.config, captioner.tokenizer, preprocess=captioner.preprocess).eval()
    new.load_state_dict(captioner.state_dict())
    return new


def test_the_pointing_game_counts_peaks_and_mass() -> None:
    """A captioner that always looks at one cell hits as often as that cell shows the object."""
    scenes = [make_scene(4, index, image_size=64) for index in range(60)]
    rows = ground(scene_captioner(Pointer), scenes, batch_size=25)
    assert len(rows) == 3 * 2 * 5 * 2  # kinds, layers, heads and their mean, alignments
    words = hits = mass = 0.0
    for scene in scenes:
        for word, thing in zip(scene.caption.split(), scene.word_objects, strict=True):
            if thing is not None and word in SHAPES:
                cell = scene.objects[thing].mask[:8, :8]
                words, hits, mass = words + 1, hits + bool(cell.any()), mass + float(cell.mean())
    for row in rows:
        if row.kind == "shape" and row.head in (0, 1, 2):
            assert (row.words, row.hits) == (words, pytest.approx(hits / words))
            assert row.mass == pytest.approx(mass / words, abs=1e-6)
    corner = best(rows, "shape")
    assert corner.hits == max(row.hits for row in rows if row.kind == "shape")
    assert 0.1 < corner.chance < 0.3 and 0.03 < corner.area < 0.15


def test_a_new_captioner_starts_from_the_shipped_vit() -> None:
    captioner = scene_captioner()
    shipped = load_model(caption_run.SHIPPED_VIT)
    for name, tensor in shipped.state_dict().items():
        assert torch.equal(captioner.backbone.state_dict()[name], tensor)
    assert captioner.preprocess == shipped.preprocess


# ---- the command --------------------------------------------------------------------------------


def test_training_on_scenes_leaves_a_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(caption_run, "NUM_HELD_OUT", 40)
    monkeypatch.setattr(caption_run.scene_report, "__kwdefaults__", {"num_scenes": 40})
    out = tmp_path / "run"
    words = ["caption", "--limit", "128", "--epochs", "1", "--workers", "0", "--out", str(out)]
    assert command.main(words) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {
        "recipe.toml", "metrics.csv", "curves.png", "report.md", "best.safetensors",
        "last.safetensors",
    }  # fmt: skip
    report = (out / "report.md").read_text()
    assert "attribute words right" in report and "pointing, shape words" in report
    assert "attribute words right" in capsys.readouterr().out
    captioner = load_model(out / "best.safetensors", expected=Captioner)
    assert captioner.caption([make_scene(0, 0).image])[0].text is not None


def photos(folder: Path, captions: list[str]) -> Path:
    for index in range(len(captions)):
        Image.new("RGB", (40 + 8 * index, 48), (10 * index, 90, 200)).save(folder / f"{index}.png")
    rows = "".join(f'{index}.png,"{text}"\n' for index, text in enumerate(captions))
    (folder / "captions.csv").write_text("file,caption\n" + rows)
    return folder / "captions.csv"


def test_training_on_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A CSV of photos of several sizes, a small ResNet, the whole path."""
    from dataclasses import replace

    recipe = CAPTION_RECIPES["catr_coco"]
    small = replace(
        recipe, backbone="resnet50", dim=32, num_heads=2, hidden_dim=32, encoder_depth=1,
        decoder_depth=1, head_dim=16, max_length=8,
    )  # fmt: skip
    monkeypatch.setitem(CAPTION_RECIPES, "catr_coco", small)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "left", "of", "cat", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    data = photos(tmp_path, [f"a dog of a cat {'.' * (index % 3)}" for index in range(12)])
    arguments = [
        "caption", "--data", str(data), "--vocab", str(tmp_path / "vocab.txt"), "--epochs", "1",
        "--batch-size", "4", "--workers", "0", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "1 photos held out" in printed and "epoch   1" in printed
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_no_flips_where_captions_say_left(tmp_path: Path) -> None:
    captioner = make_captioner()
    recipe = CAPTION_RECIPES["catr_coco"]
    for text, said in (("a dog left of a cat", True), ("a dog of a cat", False)):
        data = caption_run.photo_data(
            captioner,
            recipe,
            photos(tmp_path, [text] * 4),
            workers=0,
            skip_missing=False,
            limit=None,
        )
        assert ("no flips and quarter turns" in data.description) == said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere", "--vocab", "vocab.txt"], "nowhere"),
        (["--data", "captions.csv"], "give BERT's with --vocab vocab.txt"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--lr", "-1"], "lr is -1.0"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos(tmp_path, ["a dog"] * 3)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na")
    monkeypatch.chdir(tmp_path)
    assert command.main(["caption", "--limit", "8", "--workers", "0", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.strip().count("\n") == 0
