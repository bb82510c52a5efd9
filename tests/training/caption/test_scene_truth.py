"""Captions against the scenes themselves: what is true scores 1, each fault costs its share."""

import math
import re

import numpy as np
import pytest
from PIL import Image

from minivit.data.scenes.captions import RELATIONS
from minivit.data.scenes.dataset import COLOURS, SIZES, Scene, SceneObject, make_scene
from minivit.training.caption.scene_truth import scene_scores

SHORT = 64  # of the pictures, which are 64 × 96


def scene(**objects: tuple[float, float]) -> Scene:
    """A scene made of names such as large_red_star and places (row, column) in shorter sides."""
    things = []
    for name, (row, column) in objects.items():
        size, colour, shape = name.split("_")
        mask = np.zeros((SHORT, 96), dtype=np.bool_)
        centre = (row * SHORT, column * SHORT)
        things.append(SceneObject(shape, colour, size, centre, SIZES[size][0] * SHORT, 0.0, mask))
    return Scene(Image.new("RGB", (96, SHORT)), 0, tuple(things), "", ())


STAR = scene(large_red_star=(0.5, 0.75))
PAIR = scene(large_red_star=(0.5, 0.3), small_blue_ring=(0.45, 1.2))  # the star is left of the ring
ROW = scene(large_red_star=(0.5, 0.75), small_blue_ring=(0.45, 0.2), small_cyan_cross=(0.5, 1.3))


def scores(caption: str, truth: Scene) -> tuple[float, float, float]:
    """(attribute words, exact objects, relations) of one caption."""
    found = scene_scores([caption], [truth])
    assert list(found) == ["attribute_words", "exact_objects", "relations", "whole"]
    return found["attribute_words"], found["exact_objects"], found["relations"]


# ---- what is true -----------------------------------------------------------------------------


@pytest.mark.parametrize("difficulty", ["easy", "full"])
def test_the_captions_of_the_scenes_are_wholly_true(difficulty: str) -> None:
    for size in ((32, 48), 16):
        scenes = [make_scene(4, i, image_size=size, difficulty=difficulty) for i in range(150)]
        found = scene_scores([scene.caption for scene in scenes], scenes)
        assert found == {
            "attribute_words": 1.0,
            "exact_objects": 1.0,
            "relations": 1.0,
            "whole": 1.0,
        }


def test_captions_of_other_scenes_are_mostly_false() -> None:
    scenes = [make_scene(4, index, image_size=16) for index in range(300)]
    found = scene_scores([scene.caption for scene in scenes[1:] + scenes[:1]], scenes)
    assert 0.2 < found["attribute_words"] < 0.4
    assert found["exact_objects"] < 0.02
    assert found["relations"] < 0.2


def test_each_word_of_a_true_caption_matters() -> None:
    """Another colour, or the opposite relation, in place of one word."""
    others = list(COLOURS)[1:] + list(COLOURS)[:1]
    recolour = dict(zip(COLOURS, others, strict=True))
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
    opposite |= {"upper": "lower", "lower": "upper", "over": "under", "under": "over"}
    opposite |= {"beneath": "above"}
    changed = 0
    for index in range(150):
        truth = make_scene(6, index, image_size=(32, 48))
        words = truth.caption.split()
        for place, word in enumerate(words):
            if word in COLOURS and words[place - 1] in SIZES:
                text = " ".join([*words[:place], recolour[word], *words[place + 1 :]])
                part, exact, _ = scores(text, truth)
                count = 3 * len(truth.objects)
                # "the red star" no longer names it again, where it does: two words more
                said = count + 2 * (f"the {word} {words[place + 1]}" in truth.caption)
                assert part == pytest.approx((count - 1) / said)
                assert exact == 0
            if word in opposite:
                text = " ".join([*words[:place], opposite[word], *words[place + 1 :]])
                statements = max(len(truth.objects) - 1, 1)
                assert scores(text, truth) == (1, 1, pytest.approx(1 - 1 / statements))
                changed += 1
    assert changed > 75


# ---- objects ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "words", "exact"),
    [
        ("a large red star", 1, 1),
        ("A single LARGE red star, on its own.", 1, 1),
        ("there is red large star", 1, 1),  # the order does not matter
        ("a large red ring", 2 / 3, 0),
        ("a red star", 2 / 3, 0),
        ("a large star red", 2 / 3, 0),  # a shape ends the phrase: large star, and red
        ("a large red red star", 3 / 4, 0),
        ("a large red star and a large red star", 3 / 6, 0),
        ("a small blue ring and a large red star", 3 / 6, 0),
        ("a large red star and the red star and the star", 1, 1),  # named again
        ("a large red star and the small star", 3 / 5, 0),  # that is another one
        ("the large red star", 1, 1),  # nothing before it that it could name again
        ("a small blue ring", 0, 0),
        ("", 0, 0),
        ("a of the and nothing", 0, 0),
    ],
)
def test_words_and_objects_of_one(caption: str, words: float, exact: float) -> None:
    found = scores(caption, STAR)
    assert found[:2] == (pytest.approx(words), exact)
    assert math.isnan(found[2])  # nothing was stated


def test_phrases_are_matched_so_that_most_words_agree() -> None:
    truth = scene(large_red_star=(0.5, 0.3), small_red_ring=(0.5, 1.2))
    # the first phrase shares two words with the star and three with the ring
    assert scores("a small red ring right of a large red star", truth) == (1, 1, 1)
    assert scores("a small red star right of a large red ring", truth)[:2] == (4 / 6, 0)
    # the star can only be had by the second phrase: 1 + 3 is more than 2 + 0
    assert scores("a small blue star and a large red star", truth)[0] == pytest.approx(4 / 6)
    long = " ".join(["a small red star"] * 40)  # a model that repeats itself
    assert scores(long, truth)[0] == pytest.approx(4 / 120)


def test_of_equal_matchings_the_one_with_a_phrase_wholly_right_is_taken() -> None:
    truth = scene(small_red_ring=(0.5, 0.2), small_red_star=(0.5, 1.2))
    # 3 + 1 words: the star, and a phrase that shares "small" with the ring; or 2 + 2 the other
    # way about, by which it would be true
    words, _, relations = scores("a small red star left of a small blue star", truth)
    assert (words, relations) == (pytest.approx(4 / 6), 0)


@pytest.mark.parametrize(
    ("caption", "truth", "whole"),
    [
        ("a large red star", STAR, 1),
        ("a large red star left of a small blue ring", PAIR, 1),
        ("a large red star right of a small blue ring", PAIR, 0),
        ("a large red star left of a small cyan ring", PAIR, 0),
        ("a large red star and a small blue ring", PAIR, 0),  # where is it?
        ("a large red star", PAIR, 0),
        ("a large red star between a small blue ring and a small cyan cross", ROW, 1),
    ],
)
def test_a_caption_is_right_as_a_whole_when_all_of_it_is(
    caption: str, truth: Scene, whole: int
) -> None:
    assert scene_scores([caption], [truth])["whole"] == whole


@pytest.mark.parametrize(
    ("down", "right", "diagonal"),
    [(0.25, 1, 0), (0.30, 1, 1), (0.33, 1, 1), (0.40, 0, 1)],  # the border: 0.5 / 1.6 = 0.3125
)
def test_both_words_are_true_at_the_border_between_them(
    down: float, right: int, diagonal: int
) -> None:
    truth = scene(large_red_star=(0.2 + down, 0.8), small_blue_ring=(0.2, 0.3))
    for words, true, exact in (
        ("right of", right, down < 0.3125),
        ("to the lower right of", diagonal, down > 0.3125),
        ("left of", 0, False),
    ):
        caption = f"a large red star {words} a small blue ring"
        assert scene_scores([caption], [truth], tolerance=0.03)["relations"] == true
        assert scene_scores([caption], [truth])["relations"] == exact


def test_between_has_a_border_too() -> None:
    caption = "a large red star between a small blue ring and a small cyan cross"
    ends = {"small_blue_ring": (0.5, 0.2), "small_cyan_cross": (0.5, 1.2)}
    for aside, true, exact in ((0.14, 1, 1), (0.17, 1, 0), (0.19, 0, 0)):  # 0.15 of the length 1
        truth = scene(large_red_star=(0.5 + aside, 0.7), **ends)
        assert scene_scores([caption], [truth], tolerance=0.03)["whole"] == true
        assert scene_scores([caption], [truth])["whole"] == exact


def test_captions_are_counted_together() -> None:
    found = scene_scores(["a large red star", "a large"], [STAR, PAIR])
    assert found["attribute_words"] == pytest.approx((3 + 1) / (3 + 6))
    assert found["exact_objects"] == 0.5
    with pytest.raises(ValueError, match="1 captions and 2 scenes"):
        scene_scores(["a large red star"], [STAR, PAIR])
    with pytest.raises(ValueError, match="0 captions"):
        scene_scores([], [])


# ---- relations --------------------------------------------------------------------------------

PLACES = [  # (row, column) of the ring from the star, in shorter sides, and the only true word
    ((0.0, 0.5), "right"),
    ((0.3, 0.5), "right"),
    ((0.32, 0.5), "lower right"),  # 0.5 is less than 1.6 × 0.32
    ((-0.32, 0.5), "upper right"),
    ((0.5, 0.3), "below"),
    ((-0.5, 0.3), "above"),
    ((-0.3, -0.5), "left"),
    ((-0.45, -0.5), "upper left"),
    ((0.45, -0.5), "lower left"),
    ((0.0, 0.19), "near"),
    ((0.19, 0.25), "near"),
]


@pytest.mark.parametrize(("offset", "name"), PLACES)
def test_one_relation_is_true_and_only_in_its_direction(offset, name: str) -> None:
    row, column = offset
    truth = scene(large_red_star=(1.0, 1.0), small_blue_ring=(1.0 + row, 1.0 + column))
    ring, star = "a small blue ring", "a large red star"
    turned = {"left": "right", "right": "left", "upper": "lower", "lower": "upper"}
    turned |= {"above": "below", "below": "above", "near": "near"}
    for relation, phrases in RELATIONS.items():
        for phrase in phrases:
            for text in (
                f"{ring} {phrase} {star}",
                f"there is {ring} {phrase} {star}",
                f"{ring} is {phrase} {star}",
                f"{ring} sits {phrase} {star}",
                f"{ring} can be seen {phrase} {star}",
                f"{phrase} {star} there is {ring}",
                f"{phrase} {star} sits {ring}",
            ):
                assert scores(text, truth) == (1, 1, relation == name), text
            back = " ".join(turned[word] for word in name.split())
            opposite = scores(f"{star} {phrase} {ring}", truth)
            assert opposite[2] == (relation == back)


@pytest.mark.parametrize(
    ("caption", "true"),
    [
        ("a large red star between a small blue ring and a small cyan cross", 1),
        ("a large red star is between a small cyan cross and a small blue ring", 1),
        ("between a small blue ring and a small cyan cross sits a large red star", 1),
        ("a small blue ring between a large red star and a small cyan cross", 0),
        ("a large red star between a small blue ring and a small blue ring", 0),
        ("a large red star between a small blue ring", 0),
        ("a large red star right of a small blue ring and left of a small cyan cross", 1),
        ("a large red star right of a small blue ring and right of a small cyan cross", 0.5),
        ("a large red star near a small blue ring with a cyan cross right of the red star", 0.5),
        ("a large red star sits near a blue ring and a cyan cross is right of the red star", 0.5),
        ("a small blue ring left of the red star left of a small cyan cross", 1),
        ("left of a small cyan cross there is a large red star", 1),
        ("a large red star left of", 0),
        ("left of a large red star", 0),
        ("a large red star left of the red star", 0),
        ("a large red star near the red star", 0),
        ("a large red star between a small blue ring and the blue ring", 0),
        ("a large red star nothing left of a small cyan cross", 0),
        ("a large red star nothing left of a small cyan cross there is a small blue ring", 0),
        ("a large red star left of near a small cyan cross", 0),  # neither has both
        ("a large red star near a small yellow ring", 0),  # 0.55 away: "right of"
        ("a large red star right of a small yellow ring", 1),
        ("a large red star left of a small pink circle", 0),  # "small" names nothing
        ("a small cyan cross right of a yellow circle", 0),  # not there
    ],
)
def test_statements_about_three(caption: str, true: float) -> None:
    assert scores(caption, ROW)[2] == true


def test_a_wrong_word_does_not_make_a_place_wrong() -> None:
    # The phrases still agree most with these objects: the place is judged, not the colour.
    words, exact, relations = scores("a large pink star left of a small blue ring", PAIR)
    assert (words, exact, relations) == (pytest.approx(5 / 6), 0, 1)


def test_scores_do_not_depend_on_the_order_of_captions() -> None:
    scenes = [make_scene(8, index, image_size=16) for index in range(100)]
    texts = [re.sub("star|ring", "cross", scene.caption) for scene in scenes]
    forward = scene_scores(texts, scenes)
    assert forward == pytest.approx(scene_scores(texts[::-1], scenes[::-1]))
    assert 0.8 < forward["attribute_words"] < 1
