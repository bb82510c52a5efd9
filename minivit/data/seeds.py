"""The contract of repeatability: which numbers a random choice is drawn from.

Every random choice comes from a stream that is made for it from numbers known beforehand, and the
stream is dropped after use. No generator is kept from one choice to the next, so there is no hidden
state to save: a run that was killed and resumed ends with the same bits as one that was not, and
neither the order of loading nor the number of worker processes changes a sample.

==============================================  ===========================  =====================
what is drawn                                   from                         by
==============================================  ===========================  =====================
augmentation of a photo                         (seed, epoch, index)         `sample_rng`
mixing or turning of the pictures of a step     (seed, epoch, step)          `sample_rng`
augmentation of a picture with a caption        (seed, epoch, index)         `caption_rng`
a scene; the words of its caption               (seed, index), stream 0; 1   `scene_rng`
dropout in a step of training                   (seed, step, process)        `mix_seed`
order of the samples in an epoch                (seed, epoch)                the training loop
photos that are held out                        (seed, name) of each         `data.photos.splits`
IDX pictures, captioned pictures held out       seed, number of pictures     `data.photos.idx`,
                                                                             `data.captions.splits`
==============================================  ===========================  =====================

A new transform, data set or loss draws from a stream of this file. The streams are part of what a
seed means: another generator here, or numbers in another order, would change every result.
"""

from __future__ import annotations

import numpy as np


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch: a stream of its own for every triple.

    Raises:
        ValueError: A negative number.
    """
    if min(seed, epoch, index) < 0:
        numbers = f"{seed}, {epoch}, {index}"
        raise ValueError(f"seed, epoch, index: found {numbers}, expected 0 or more")
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence((seed, epoch, index))))


def caption_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The same for a picture with a caption.

    The generator is numpy's default instead of SFC64, as it was when the first captioners were
    trained: a run of theirs that is resumed sees the same pictures.

    Raises:
        ValueError: A negative number.
    """
    return np.random.default_rng((seed, epoch, index))


def scene_rng(seed: int, index: int, stream: int) -> np.random.Generator:
    """The random numbers of one scene.

    Args:
        seed: Name of the series of scenes.
        index: Number of the scene in the series.
        stream: 0 for the picture, 1 for the caption: a change of one leaves the other as it is.

    Raises:
        ValueError: A negative seed or index.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index of a scene must be 0 or more, got {seed} and {index}")
    sequence = np.random.SeedSequence((seed, index), spawn_key=(stream,))
    return np.random.Generator(np.random.SFC64(sequence))


def mix_seed(*numbers: int) -> int:
    """One seed, 0 to 2⁶³ - 1, of several numbers; neighbours give seeds that are far apart.

    Two calls differ in a number, not in how many there are: a 0 at the end changes nothing.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
