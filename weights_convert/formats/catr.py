"""saahiluppal/catr: the captioner's published weights v1, v2, v3, and its training checkpoints."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from minivit.config import CATR, ResNetConfig
from minivit.tokenizer import WordPiece
from weights_convert.architecture import HALF, Hints, Parts, preprocessing
from weights_convert.formats.resnet import resnet_depth
from weights_convert.key_tables import rename
from weights_convert.reading import ConvertError, Source

VOCABULARY = "https://huggingface.co/bert-base-uncased/resolve/main/vocab.txt"
_ENCODER, _DECODER = "transformer.encoder.layers.{i}", "transformer.decoder.layers.{i}"
KEYS = {
    "backbone.0.body.{rest}": "backbone.{rest}",
    "input_proj.{part}": "input_proj.{part}",
    f"{_ENCODER}.self_attn.in_proj_{{part}}": "encoder.{i}.attn.qkv.{part}",
    f"{_ENCODER}.self_attn.out_proj.{{part}}": "encoder.{i}.attn.proj.{part}",
    f"{_ENCODER}.linear1.{{part}}": "encoder.{i}.mlp.fc1.{part}",
    f"{_ENCODER}.linear2.{{part}}": "encoder.{i}.mlp.fc2.{part}",
    f"{_ENCODER}.norm1.{{part}}": "encoder.{i}.norm1.{part}",
    f"{_ENCODER}.norm2.{{part}}": "encoder.{i}.norm2.{part}",
    "transformer.encoder.norm.{part}": "encoder_norm.{part}",
    "transformer.embeddings.word_embeddings.weight": "word_embed.weight",
    "transformer.embeddings.position_embeddings.weight": "pos_embed",
    "transformer.embeddings.LayerNorm.{part}": "embed_norm.{part}",
    f"{_DECODER}.self_attn.in_proj_{{part}}": "decoder.{i}.attn.qkv.{part}",
    f"{_DECODER}.self_attn.out_proj.{{part}}": "decoder.{i}.attn.proj.{part}",
    f"{_DECODER}.multihead_attn.in_proj_{{part}}": "decoder.{i}.cross_attn.qkv.{part}",
    f"{_DECODER}.multihead_attn.out_proj.{{part}}": "decoder.{i}.cross_attn.proj.{part}",
    f"{_DECODER}.linear1.{{part}}": "decoder.{i}.mlp.fc1.{part}",
    f"{_DECODER}.linear2.{{part}}": "decoder.{i}.mlp.fc2.{part}",
    f"{_DECODER}.norm1.{{part}}": "decoder.{i}.norm1.{part}",
    f"{_DECODER}.norm2.{{part}}": "decoder.{i}.norm2.{part}",
    f"{_DECODER}.norm3.{{part}}": "decoder.{i}.norm3.{part}",
    "transformer.decoder.norm.{part}": "decoder_norm.{part}",
    "mlp.layers.{i}.{part}": "head.{i}.{part}",
}


def recognises(source: Source) -> bool:
    """Whether a transformer for captions stands behind a backbone as DETR names it."""
    return "transformer.embeddings.word_embeddings.weight" in source.tensors


def convert(source: Source, hints: Hints) -> Parts:
    """The captioner, with its vocabulary.

    Raises:
        ConvertError: No vocabulary, one of another length, or tensors of another network.
    """
    where = str(source.path)
    tensors = rename(source.tensors, KEYS, where)
    if hints.vocabulary is None:
        raise ConvertError(
            f"{where}: the vocabulary is not in the file: give BERT's uncased one with --vocab "
            f"vocab.txt ({VOCABULARY})"
        )
    tokenizer = WordPiece.from_file(hints.vocabulary)
    words, dim = tensors["word_embed.weight"].shape
    if len(tokenizer) != words:
        raise ConvertError(
            f"{hints.vocabulary}: {len(tokenizer)} words, the weights are for {words}"
        )
    tensors["pos_embed"] = tensors["pos_embed"][None]  # (T, D) -> (1, T, D)
    tensors["input_proj.weight"] = tensors["input_proj.weight"].flatten(1)  # 1×1 kernel -> matrix
    backbone = (name.removeprefix("backbone.") for name in tensors)
    config = dataclasses.replace(
        CATR,
        backbone=ResNetConfig(depth=resnet_depth(backbone, where), dilate_last_stage=True),
        vocabulary_size=words,
        max_length=tensors["pos_embed"].shape[1],
        dim=dim,
        num_heads=hints.num_heads or CATR.num_heads,
        hidden_dim=tensors["decoder.0.mlp.fc1.weight"].shape[0],
        encoder_depth=_count(tensors, "encoder"),
        decoder_depth=_count(tensors, "decoder"),
        head_dim=tensors["head.0.weight"].shape[0],
    )
    if hints.num_heads is None:
        hints.assume(f"{config.num_heads} heads and a dilated last stage, as CATR configures it")
    preprocess = preprocessing((299, 299), HALF, HALF, filter="bicubic", mode="fit_longest")
    return Parts(config, tensors, preprocess, tokenizer=tokenizer)


def _count(names: Iterable[str], part: str) -> int:
    """Blocks of the encoder or decoder."""
    return 1 + max(int(found[1]) for name in names if (found := re.match(rf"{part}\.(\d+)", name)))
