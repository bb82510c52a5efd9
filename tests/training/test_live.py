"""The same losses as somebody else's model, optimizer and schedule. Run by `make parity`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from minivit.training.classify.data import LabelledImages
from minivit.training.classify.task import ClassificationTask
from minivit.training.loop import Trainer
from minivit.training.settings import Settings
from minivit.training.task import epoch_order
from tests.training.tasks import ALONE
from weights_convert import convert

pytestmark = pytest.mark.parity

STEPS, BATCH, WARMUP = 20, 8, 4

RECIPES = {
    "sgd": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
    "adam": {"optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-3},
    "adamw": {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05},
    "adamw, layer decay": {
        "optimizer": "adamw",
        "lr": 2e-3,
        "weight_decay": 0.05,
        "layer_decay": 0.7,
        "label_smoothing": 0.1,
        "grad_clip": 1.0,
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_twenty_losses_are_those_of_a_timm_loop(name: str, tmp_path: Path) -> None:
    """timm's ViT and its groups of parameters, torch's optimizer, schedulers and loss."""
    import timm
    from timm.optim import create_optimizer_v2

    recipe: dict[str, Any] = RECIPES[name]
    torch.manual_seed(0)
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5)
    torch.nn.init.normal_(theirs.head.weight, std=0.02)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = convert(tmp_path / "weights.pth", name="vit_tiny_patch16_224").model
    images = torch.randint(0, 256, (80, 3, 64, 64), dtype=torch.uint8)
    labels = torch.arange(80) % 5
    images[:, 0] = images[:, 0] // 2 + (labels * 25).to(torch.uint8)[:, None, None]

    losses: list[float] = []
    settings = Settings(epochs=2, batch_size=BATCH, warmup_share=WARMUP / STEPS, seed=3, **recipe)
    task = ClassificationTask(ours)
    data = LabelledImages(images, labels)
    trained = Trainer(task, data, data, [settings], processes=ALONE, on_step=losses.append)
    list(trained.run())

    options = {"momentum": 0.9} if name == "sgd" else {}
    if "layer_decay" in recipe:
        options["layer_decay"] = recipe["layer_decay"]
    optimizer = create_optimizer_v2(
        theirs,
        opt={"sgd": "momentum", "adam": "adam"}.get(name, "adamw"),
        lr=recipe["lr"],
        weight_decay=recipe["weight_decay"],
        **options,
    )
    if "layer_decay" in recipe:  # BEiT gives the last norm the rate of the head, timm the block's
        norm = set(theirs.norm.parameters())
        for group in optimizer.param_groups:
            group["params"] = [each for each in group["params"] if each not in norm]
        optimizer.add_param_group({"params": list(norm), "lr_scale": 1.0, "weight_decay": 0.0})
    for group in optimizer.param_groups:  # as timm's own schedulers apply it
        group["lr"] = recipe["lr"] * group.get("lr_scale", 1.0)
    schedule = SequentialLR(
        optimizer,
        [
            LinearLR(optimizer, 1 / WARMUP, 1.0, WARMUP - 1),
            CosineAnnealingLR(optimizer, STEPS - WARMUP),
        ],
        [WARMUP],
    )
    theirs.train()
    expected = []
    for step in range(STEPS):
        epoch, at = divmod(step, STEPS // 2)
        chosen = epoch_order(3, epoch, 80)[BATCH * at : BATCH * (at + 1)]
        pictures = ours.preprocess.normalize(images[chosen])
        loss = F.cross_entropy(
            theirs(pictures), labels[chosen], label_smoothing=recipe.get("label_smoothing", 0.0)
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if "grad_clip" in recipe:
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), recipe["grad_clip"])
        optimizer.step()
        schedule.step()
        expected.append(loss.item())
    assert len(losses) == STEPS
    assert losses == pytest.approx(expected, abs=1e-4)
    assert min(expected[-3:]) < 0.9 * expected[0]  # steps that move something
