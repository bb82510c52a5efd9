"""A digest tells the samples of a run from others, and says in one line what is different."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from minivit.data.captions.sets import CaptionedPicture, CaptionSet
from minivit.training import data_digest
from minivit.training.data_digest import (
    DataDigest,
    caption_digest,
    photo_digest,
    scene_digest,
)

PHOTOS = [("cat/1.png", 0), ("cat/2.png", 0), ("dog/1.png", 1), ("dog/2.png", 1)]
HELD_OUT = [("cat/9.png", 0), ("dog/9.png", 1)]
BACK = "; put the data back as they were, or --overwrite"


def photos(
    train: Sequence[tuple[str, int]] = PHOTOS,
    validation: Sequence[tuple[str, int]] = HELD_OUT,
    names: Sequence[str] = ("cat", "dog"),
) -> DataDigest:
    return photo_digest(names, train=train, validation=validation)


def through_a_state(digest: DataDigest) -> tuple[DataDigest, int]:
    """The digest as a state gives it back, and the size of that state in bytes."""
    file = io.BytesIO()
    torch.save({"data": digest.to_dict()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)["data"]
    return DataDigest.from_dict(loaded), len(file.getvalue())


def changes(before: DataDigest, now: DataDigest) -> str:
    """What is said about another set, between the words that are always there."""
    text = now.changes_since(through_a_state(before)[0])
    start = "the data are not those of this run: "
    assert text.startswith(start) and text.endswith(BACK) and "\n" not in text
    return text.removeprefix(start).removesuffix(BACK)


# ---- photos --------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [10_000, 3])
def test_the_same_photos_are_the_same(listed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_digest, "MOST_LISTED", listed)
    before, _ = through_a_state(photos())
    assert before == photos() and photos().changes_since(before) == ""


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (
            photos(PHOTOS[:1] + PHOTOS[3:]),
            "of the photos to train on, 2 were removed (the first is 'cat/2.png')",
        ),
        (
            photos([*PHOTOS, ("dog/3.png", 1)]),
            "of the photos to train on, 1 was added ('dog/3.png')",
        ),
        (
            photos(PHOTOS[1:], [PHOTOS[0], *HELD_OUT]),
            "of the photos to train on, 1 was removed ('cat/1.png'); "
            "of the photos to validate on, 1 was added ('cat/1.png')",
        ),
        (
            photos([("cat/0.png", 0), *PHOTOS[1:]]),
            "of the photos to train on, 1 was removed ('cat/1.png'), 1 was added ('cat/0.png')",
        ),
        (
            photos([*PHOTOS[:3], ("dog/2.png", 0)]),
            "of the photos to train on, the label of 'dog/2.png' was 'dog' and is 'cat'",
        ),
        (
            photos([*PHOTOS[:2], ("dog/1.png", 0), ("dog/2.png", 0)]),
            "of the photos to train on, the label of 'dog/1.png' was 'dog' and is 'cat', "
            "and so for 1 more",
        ),
        (photos(PHOTOS[::-1]), "of the photos to train on, the order is another"),
        (
            photos(names=("cat", "wolf")),
            "classes were 'cat', 'dog' (2) and are 'cat', 'wolf' (2)",
        ),
        (
            photos(names=("cat", "dog", "horse")),
            "classes were 'cat', 'dog' (2) and are 'cat', 'dog', 'horse' (3)",
        ),
        (
            photos(names=("dog", "cat")),
            "classes were 'cat', 'dog' (2) and are 'dog', 'cat' (2)",
        ),
    ],
)
def test_other_photos_are_named(now: DataDigest, said: str) -> None:
    assert changes(photos(), now) == said


def test_of_many_classes_those_around_the_first_difference_are_shown() -> None:
    names = [f"class {number:02}" for number in range(37)]
    renamed = [*names[:20], "new", *names[21:]]
    assert changes(photos(names=names), photos(names=renamed)) == (
        "classes were … 'class 18', 'class 19', 'class 20', 'class 21' … (37) "
        "and are … 'class 18', 'class 19', 'new', 'class 21' … (37)"
    )


def test_names_are_any_text_that_a_file_system_has() -> None:
    odd = [("a\tb\nc \udcff\udc80.png", 0), ("é\\\"'.png", 1)]
    assert photos(odd).changes_since(through_a_state(photos(odd))[0]) == ""
    assert changes(photos(odd[1:]), photos(odd)).endswith(
        "1 was added ('a\\tb\\nc \\udcff\\udc80.png')"
    )


def test_a_large_set_keeps_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_digest, "MOST_LISTED", 3)
    for now, said in (
        (
            PHOTOS[:3],
            "4 were there and 3 are now",
        ),
        (
            [*PHOTOS, ("dog/3.png", 1)],
            "4 were there and 5 are now (of class 'dog' 2 were there and 3 are now)",
        ),
        (
            [*PHOTOS[:3], ("dog/2.png", 0)],
            "the names, labels or order are others, 4 as before "
            "(of class 'cat' 2 were there and 3 are now)",
        ),
        (
            [*PHOTOS[:3], ("dog/3.png", 1)],
            "the names, labels or order are others, 4 as before",
        ),
    ):
        assert changes(photos(), photos(now)) == f"of the photos to train on, {said}"


def test_a_digest_is_small() -> None:
    """3,680 photos with names that nothing can make shorter than 16 bytes; 100,000 in a hash."""
    chance = torch.Generator().manual_seed(0)
    names = torch.randint(256, (3680, 16), generator=chance, dtype=torch.uint8).numpy()
    pets = [(f"{name.tobytes().hex()}.jpg", number % 37) for number, name in enumerate(names)]
    breeds = [f"breed {number}" for number in range(37)]
    _, size = through_a_state(photos(pets[736:], pets[:736], breeds))
    assert size < 100_000
    many = [(f"{number}.jpg", number % 37) for number in range(100_000)]
    _, size = through_a_state(photos(many, pets[:10], breeds))
    assert size < 5_000


# ---- captions ------------------------------------------------------------------------------------


def captions(
    folder: str = "/here",
    train: Sequence[tuple[str, ...]] = (("a.jpg", "a dog", "one dog"), ("b/a.jpg", "a cat")),
    words: Sequence[str] = ("a", "dog", "cat"),
) -> DataDigest:
    place = Path(folder)
    pictures = [CaptionedPicture(place / name, tuple(texts)) for name, *texts in train]
    held_out = CaptionSet((CaptionedPicture(place / "c.jpg", ("a dog",)),), "")
    return caption_digest(
        words, folder=place, train=CaptionSet(tuple(pictures), ""), validation=held_out
    )


def test_captions_are_the_same_wherever_their_folder_lies() -> None:
    before, _ = through_a_state(captions())
    assert captions("there/too").changes_since(before) == ""


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"train": (("a.jpg", "a dog", "one dog"), ("b/a.jpg", "a lion"))},
            "of the photos with captions to train on, the captions of 'b/a.jpg' are others",
        ),
        (
            {"train": (("a.jpg", "one dog", "a dog"), ("b/a.jpg", "a cat"))},
            "of the photos with captions to train on, the captions of 'a.jpg' are others",
        ),
        (
            {"train": (("a.jpg", "a dog", "one dog"),)},
            "of the photos with captions to train on, 1 was removed ('b/a.jpg')",
        ),
        (
            {"train": (("b/a.jpg", "a cat"), ("a.jpg", "a dog", "one dog"))},
            "of the photos with captions to train on, the order is another",
        ),
        (
            {"words": ("a", "cat", "dog")},
            "words of the vocabulary were 'a', 'dog', 'cat' (3) and are 'a', 'cat', 'dog' (3)",
        ),
    ],
)
def test_other_captions_are_named(values: dict[str, Any], said: str) -> None:
    assert changes(captions(), captions(**values)) == said


def test_of_a_large_vocabulary_the_number_is_known() -> None:
    words = [f"word{number}" for number in range(10_001)]
    assert changes(captions(words=words), captions(words=[*words[:-1], "other"])) == (
        "words of the vocabulary were 10,001 and are 10,001 others"
    )
    assert changes(captions(words=words), captions(words=words[:-1])) == (
        "words of the vocabulary were 10,001 and are 10,000"
    )


# ---- scenes --------------------------------------------------------------------------------------

IMAGES = torch.randint(256, (40, 3, 32, 48), generator=torch.Generator().manual_seed(0)).byte()
LABELS = torch.arange(40)


def scenes(images: torch.Tensor = IMAGES, labels: torch.Tensor = LABELS) -> DataDigest:
    names = [f"class {number}" for number in range(40)]
    return scene_digest(
        "classes", names, train=(images, labels), validation=(IMAGES[:20], LABELS[:20])
    )


def test_scenes_that_are_drawn_in_another_way_are_others() -> None:
    before, _ = through_a_state(scenes())
    assert scenes().changes_since(before) == ""
    start = "the data are not those of this run: of the built-in scenes to train on, "
    back = "; use the version of minivit that began the run, or --overwrite"
    for now, said in (
        (
            scenes(IMAGES.flip(3)),
            "number 0 is drawn or described in another way, and so for 15 more",
        ),
        (
            scenes(labels=LABELS.where(LABELS != 7, 8)),
            "number 7 is drawn or described in another way",
        ),
        (scenes(IMAGES[:30], LABELS[:30]), "40 were there and 30 are now"),
    ):
        assert now.changes_since(before) == f"{start}{said}{back}"


def test_a_pixel_that_is_rounded_in_another_way_makes_no_other_scene() -> None:
    images = IMAGES.clone()
    images[:, 0, 5, 5] ^= 1
    assert not torch.equal(images, IMAGES)
    assert scenes(images).changes_since(scenes()) == ""


def test_photos_are_no_scenes() -> None:
    assert changes(photos(), scenes()) == "the samples were photos and are built-in scenes"
