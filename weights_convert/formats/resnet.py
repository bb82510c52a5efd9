"""torchvision's ResNet-50 and ResNet-101, to start a captioner's backbone from."""

from __future__ import annotations

from collections.abc import Iterable

from minivit.config import RESNET_STAGES, ResNetConfig
from weights_convert.architecture import IMAGENET_MEAN, IMAGENET_STD, Hints, Parts, preprocessing
from weights_convert.key_tables import rename
from weights_convert.reading import ConvertError, Source

KEYS = {
    "{rest}.num_batches_tracked": None,  # of norms that still learn; minivit's are frozen
    "fc.{part}": None,  # a captioner has no use for the classifier
    "conv1.weight": "conv1.weight",
    "bn1.{rest}": "bn1.{rest}",
    "layer{rest}": "layer{rest}",
}


def recognises(source: Source) -> bool:
    """Whether it is a ResNet of bottlenecks, alone."""
    return {"conv1.weight", "layer1.0.conv3.weight"} <= set(source.tensors)


def convert(source: Source, hints: Hints) -> Parts:
    """The network without its classifier, its last stage not dilated.

    Raises:
        ConvertError: Another depth than 50 and 101, or tensors of another network.
    """
    where = str(source.path)
    tensors = rename(source.tensors, KEYS, where)
    config = ResNetConfig(depth=resnet_depth(tensors, where))
    hints.notes.append("left out the classifier: the output is a grid of features")
    # torchvision's second set of weights is evaluated on pictures resized to 232 pixels
    name = source.path.name
    side = 232 if "11ad3fa6" in name or "cd907fc2" in name else 256
    if side == 256 and "0676ba61" not in name and "63fe2227" not in name:
        hints.assume("photos as torchvision's first weights take them: 256 pixels, the middle 224")
    crop = 224 / (side + 0.5)  # half a pixel more, so that rounding down gives the whole number
    preprocess = preprocessing(
        (224, 224), IMAGENET_MEAN, IMAGENET_STD, filter="bilinear", crop_fraction=crop
    )
    return Parts(config, tensors, preprocess)


def resnet_depth(names: Iterable[str], where: str) -> int:
    """50 or 101, by the number of blocks in each stage.

    Args:
        names: Of the tensors, by torchvision's names.
        where: The file's name, for the message.

    Raises:
        ConvertError: Another depth.
    """
    names_there = set(names)
    blocks = tuple(
        sum(f"layer{stage}.{index}.conv1.weight" in names_there for index in range(50))
        for stage in (1, 2, 3, 4)
    )
    for depth, stages in RESNET_STAGES.items():
        if blocks == stages:
            return depth
    raise ConvertError(f"{where}: a ResNet with {blocks} blocks; minivit runs ResNet-50 and 101")
