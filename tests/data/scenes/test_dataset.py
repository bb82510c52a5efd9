"""The built-in scenes: reproducible, true to their captions, not to be solved by mean colour."""

import itertools
import re

import numpy as np
import pytest
import torch

from minivit.data.scenes.dataset import (
    CAPTION_WORDS,
    CLASS_NAMES,
    COLOURS,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    ScenesDataset,
    make_scene,
)

PALETTE = np.array(list(COLOURS.values()), dtype=np.float64)
WIDE = (64, 96)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(0, index, image_size=WIDE) for index in range(2000)]


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(scene.image)


# ---- reproducible -----------------------------------------------------------------------------


def test_same_seed_and_index_give_the_same_scene_in_any_order() -> None:
    forward = [make_scene(3, index) for index in range(12)]
    backward = [make_scene(3, index) for index in reversed(range(12))][::-1]
    for one, two in zip(forward, backward, strict=True):
        assert one.image.tobytes() == two.image.tobytes()
        assert (one.label, one.caption, one.word_objects) == (
            two.label,
            two.caption,
            two.word_objects,
        )
        for a, b in zip(one.objects, two.objects, strict=True):
            assert np.array_equal(a.mask, b.mask)


def test_other_seeds_and_indices_give_other_pictures() -> None:
    pictures = {make_scene(s, i).image.tobytes() for s in range(10) for i in range(10)}
    assert len(pictures) == 100


def test_global_random_state_neither_matters_nor_changes() -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    first = make_scene(0, 5).image.tobytes()
    after = np.random.random(), torch.rand(1).item()
    np.random.seed(1)
    torch.manual_seed(1)
    assert (np.random.random(), torch.rand(1).item()) == after
    assert make_scene(0, 5).image.tobytes() == first


@pytest.mark.parametrize("size", [(64, 64), (48, 72)])
def test_a_larger_picture_shows_the_same_scene(size: tuple[int, int]) -> None:
    for index in range(25):
        small = make_scene(1, index, image_size=size)
        large = make_scene(1, index, image_size=(2 * size[0], 2 * size[1]))
        assert (small.label, small.caption) == (large.label, large.caption)
        for one, two in zip(small.objects, large.objects, strict=True):
            assert np.allclose(np.multiply(one.centre, 2), two.centre)
            assert two.radius == pytest.approx(2 * one.radius)
            union = np.kron(one.mask, np.ones((2, 2), bool)) | two.mask
            both = np.kron(one.mask, np.ones((2, 2), bool)) & two.mask
            assert both.sum() > 0.8 * union.sum()
        # The background too: averaged over 8 x 8 blocks (16 x 16 in the larger one) it is the same.
        rows, columns = size[0] // 8, size[1] // 8
        blocks = [
            pixels(scene).reshape(rows, 8 * k, columns, 8 * k, 3).mean(axis=(1, 3))
            for k, scene in ((1, small), (2, large))
        ]
        assert np.abs(blocks[0] - blocks[1]).mean() < 3


# ---- objects ----------------------------------------------------------------------------------


def test_label_names_the_main_object(scenes: list[Scene]) -> None:
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 48
    assert CLASS_NAMES[8 * SHAPES.index("star") + list(COLOURS).index("blue")] == "blue star"
    for scene in scenes:
        assert CLASS_NAMES[scene.label] == f"{scene.objects[0].colour} {scene.objects[0].shape}"


def test_the_main_object_is_the_only_large_one_and_the_largest(scenes: list[Scene]) -> None:
    for scene in scenes:
        main, *others = scene.objects
        for thing in scene.objects:
            low, high = SIZES[thing.size]
            assert low * WIDE[0] <= thing.radius <= high * WIDE[0]
        if others:
            assert main.size == "large"
            assert all(other.size == "small" for other in others)
            assert main.mask.sum() > max(other.mask.sum() for other in others)
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3}
    assert {s.objects[0].size for s in scenes if len(s.objects) == 1} == {"small", "large"}


def test_masks_are_disjoint_and_keep_most_of_each_object(scenes: list[Scene]) -> None:
    shares: dict[str, list[float]] = {shape: [] for shape in SHAPES}
    for scene in scenes:
        assert all(thing.mask.shape == WIDE for thing in scene.objects)
        assert sum(thing.mask.astype(int) for thing in scene.objects).max() == 1  # type: ignore[union-attr]
        for thing in scene.objects:
            shares[thing.shape].append(thing.mask.sum() / thing.radius**2)
    for areas in shares.values():
        whole = np.median(areas)  # in squared radii, of an object that nothing hides
        assert 1.8 < whole < 2.8
        assert min(areas) > 0.55 * whole


def test_objects_overlap_only_in_part_and_never_in_one_colour(scenes: list[Scene]) -> None:
    touching = 0
    for scene in scenes:
        for one, two in itertools.combinations(scene.objects, 2):
            distance = np.linalg.norm(np.subtract(one.centre, two.centre))
            same = one.colour == two.colour
            assert distance > (1.2 if same else 0.65) * (one.radius + two.radius) - 1e-6
            assert (one.colour, one.shape) != (two.colour, two.shape)
            touching += bool(distance < 0.9 * (one.radius + two.radius))
    assert touching > 100


def test_a_mask_lies_around_its_centre_within_its_radius(scenes: list[Scene]) -> None:
    for scene in scenes[:300]:
        for thing in scene.objects:
            places = np.argwhere(thing.mask) + 0.5
            distance = np.linalg.norm(places - thing.centre, axis=1)
            assert distance.max() < 1.25 * thing.radius + 1
            assert thing.shape != "ring" or distance.min() > 0.45 * thing.radius


def test_pixels_under_a_mask_have_the_named_colour(scenes: list[Scene]) -> None:
    def nearest(colour: np.ndarray) -> str:
        directions = PALETTE / np.linalg.norm(PALETTE, axis=1, keepdims=True)
        return list(COLOURS)[int((directions @ colour).argmax())]

    things = [(scene, thing) for scene in scenes[:500] for thing in scene.objects]
    right = [nearest(pixels(s)[thing.mask].mean(axis=0)) == thing.colour for s, thing in things]
    assert np.mean(right) > 0.97


def test_objects_stand_out_from_what_surrounds_them(scenes: list[Scene]) -> None:
    for scene in scenes[:400]:
        picture = pixels(scene).astype(float)
        background = ~np.any([thing.mask for thing in scene.objects], axis=0)
        for thing in scene.objects:
            around = np.pad(thing.mask, 3)
            around = np.any(
                [np.roll(around, (r, c), (0, 1)) for r in range(-3, 4) for c in range(-3, 4)],
                axis=0,
            )[3:-3, 3:-3]
            inside, outside = picture[thing.mask], picture[around & background]
            assert np.linalg.norm(inside.mean(axis=0) - outside.mean(axis=0)) > 30


def test_shapes_differ_when_small() -> None:
    """At a radius of about 8 pixels no two shapes have masks that agree, whatever the rotation."""
    masks: dict[str, list[np.ndarray]] = {shape: [] for shape in SHAPES}
    for index in range(600):
        scene = make_scene(5, index, difficulty="easy")
        thing = scene.objects[0]
        row, column = (int(place) for place in thing.centre)
        inside = 11 <= row < 53 and 11 <= column < 53
        if len(scene.objects) == 1 and thing.size == "small" and inside:
            masks[thing.shape].append(thing.mask[row - 11 : row + 12, column - 11 : column + 12])
    assert all(len(found) >= 5 for found in masks.values())
    for one, two in itertools.combinations(SHAPES, 2):
        for a, b in itertools.product(masks[one][:8], masks[two][:8]):
            assert (a ^ b).sum() > 0.12 * (a | b).sum(), (one, two)


# ---- the task ---------------------------------------------------------------------------------


def test_all_classes_occur_about_equally_often(scenes: list[Scene]) -> None:
    counts = np.bincount([scene.label for scene in scenes], minlength=48)
    expected = len(scenes) / 48
    # Chi-squared with 47 degrees of freedom: above 90 with a probability of 0.0002.
    assert ((counts - expected) ** 2 / expected).sum() < 90


def test_mean_colour_does_not_give_the_colour_away(scenes: list[Scene]) -> None:
    colours = np.array([scene.label % 8 for scene in scenes])
    means = np.array([pixels(scene).reshape(-1, 3).mean(axis=0) for scene in scenes])
    nearest = np.linalg.norm(means[:, None] - PALETTE, axis=2).argmin(axis=1)
    assert (nearest == colours).mean() < 0.3
    centroids = np.stack([means[:1000][colours[:1000] == c].mean(axis=0) for c in range(8)])
    learned = np.linalg.norm(means[1000:, None] - centroids, axis=2).argmin(axis=1)
    assert (learned == colours[1000:]).mean() < 0.35


def test_background_does_not_depend_on_the_label(scenes: list[Scene]) -> None:
    backgrounds, colours = [], []
    for scene in scenes:
        if len(scene.objects) == 1:
            around = np.pad(scene.objects[0].mask, 2)
            shifts = itertools.product(range(-2, 3), repeat=2)
            around = np.any([np.roll(around, shift, (0, 1)) for shift in shifts], axis=0)
            backgrounds.append(pixels(scene)[~around[2:-2, 2:-2]].mean(axis=0))
            colours.append(scene.label % 8)
    values, groups = np.array(backgrounds), np.array(colours)
    errors = values.std(axis=0) / np.sqrt(np.bincount(groups)[:, None])
    means = np.stack([values[groups == colour].mean(axis=0) for colour in range(8)])
    assert (np.abs(means - values.mean(axis=0)) < 4 * errors).all()


def test_easy_scenes_are_less_crowded_and_less_noisy() -> None:
    easy = [make_scene(0, index, difficulty="easy") for index in range(100)]
    full = [make_scene(0, index, difficulty="full") for index in range(100)]
    assert {len(scene.objects) for scene in easy} == {1, 2}
    roughness = [
        np.mean([np.abs(np.diff(pixels(scene).astype(float), axis=0)).mean() for scene in group])
        for group in (easy, full)
    ]
    assert roughness[0] < 0.7 * roughness[1]


# ---- captions ---------------------------------------------------------------------------------


def noun_phrases(scene: Scene) -> list[tuple[int | None, str]]:
    """The caption cut where word_objects changes."""
    words = zip(scene.word_objects, scene.caption.split(), strict=True)
    groups = itertools.groupby(words, key=lambda pair: pair[0])
    return [(index, " ".join(word for _, word in pairs)) for index, pairs in groups]


def test_captions_are_plain_words_of_the_vocabulary(scenes: list[Scene]) -> None:
    used = set()
    for scene in scenes:
        assert re.fullmatch(r"[a-z]+( [a-z]+)*", scene.caption)
        used.update(scene.caption.split())
    assert list(CAPTION_WORDS) == sorted(used)


def test_each_object_is_named_with_its_size_colour_and_shape(scenes: list[Scene]) -> None:
    for scene in scenes:
        named = set()
        for index, phrase in noun_phrases(scene):
            if index is None:
                assert not set(phrase.split()) & {*SIZES, *COLOURS, *SHAPES}
                continue
            thing = scene.objects[index]
            full = rf"(a|one|a single) {thing.size} {thing.colour} {thing.shape}"
            again = f"the {thing.colour} {thing.shape}"
            assert re.fullmatch(full, phrase) or (phrase == again and index in named)
            named.add(index)
        assert named == set(range(len(scene.objects)))


def holds(relation: str, one: SceneObject, two: SceneObject, unit: float) -> bool:
    down, right = np.subtract(one.centre, two.centre) / unit
    words = set(relation.split())
    signs = {"upper": -down, "lower": down, "left": -right, "right": right}
    if words & {"upper", "lower"}:
        return all(signs[word] > 0.2 for word in words & set(signs))
    if words & {"left", "right"}:
        return all(signs[word] > max(0.2, 1.5 * abs(down)) for word in words & set(signs))
    if words & {"above", "over"}:
        return bool(-down > max(0.2, 1.5 * abs(right)))
    if words & {"below", "under", "beneath"}:
        return bool(down > max(0.2, 1.5 * abs(right)))
    assert words & {"near", "next", "close"}, relation
    return bool(np.hypot(down, right) < 0.45)


def stated(scene: Scene) -> tuple[list[tuple[int, str, int]], tuple[int, int, int] | None]:
    """Read a caption back: (subject, relation, object) triples, or (middle, end, end)."""
    text = " ".join(p if i is None else f"<{i}>" for i, p in noun_phrases(scene))
    text = re.sub(r"^there is |\b(there is|is|sits|can be seen) ", "", text)
    if found := re.fullmatch(r"<(\d)> between <(\d)> and <(\d)>", text):
        middle, *ends = (int(group) for group in found.groups())
        return [], (middle, ends[0], ends[1])
    if found := re.fullmatch(r"between <(\d)> and <(\d)> <(\d)>", text):
        *ends, middle = (int(group) for group in found.groups())
        return [], (middle, ends[0], ends[1])
    if found := re.fullmatch(r"([a-z ]+) <(\d)> <(\d)>", text):  # "left of B there is A"
        return [(int(found[3]), found[1], int(found[2]))], None
    if found := re.fullmatch(r"<(\d)> ([a-z ]+) <(\d)>", text):
        return [(int(found[1]), found[2], int(found[3]))], None
    patterns = (
        r"<(\d)> ([a-z ]+) <(\d)> and ([a-z ]+) <(\d)>",
        r"<(\d)> ([a-z ]+) <(\d)> (?:with|and) <(\d)> ([a-z ]+) <(\d)>",
    )
    if found := re.fullmatch(patterns[0], text):
        one, two, three = int(found[1]), int(found[3]), int(found[5])
        return [(one, found[2], two), (one, found[4], three)], None
    found = re.fullmatch(patterns[1], text)
    assert found, scene.caption
    assert found[1] == found[6]
    one, two, three = int(found[1]), int(found[3]), int(found[4])
    return [(one, found[2], two), (three, found[5], one)], None


def test_relations_are_true_of_the_centres(scenes: list[Scene]) -> None:
    kinds, firsts, betweens = set(), set(), 0
    for scene in scenes:
        if len(scene.objects) == 1:
            continue
        triples, between = stated(scene)
        firsts.add(next(index for index in scene.word_objects if index is not None))
        for one, relation, two in triples:
            assert holds(relation, scene.objects[one], scene.objects[two], WIDE[0]), scene.caption
            kinds.add(relation)
        if between is None:
            assert len(triples) == len(scene.objects) - 1
            continue
        betweens += 1
        middle, *ends = (np.array(scene.objects[index].centre) for index in between)
        cosine = np.dot(ends[0] - middle, ends[1] - middle)
        cosine /= np.linalg.norm(ends[0] - middle) * np.linalg.norm(ends[1] - middle)
        assert cosine < -0.5, scene.caption
    assert firsts == {0, 1, 2}
    assert len(kinds) == 18
    assert betweens > 20


# ---- the data set and bad arguments -----------------------------------------------------------


def test_dataset_holds_the_raw_pixels_and_labels_of_the_scenes() -> None:
    data = ScenesDataset(seed=7, length=5, image_size=(48, 72), difficulty="easy")
    assert len(data) == len(list(data)) == 5  # type: ignore[call-overload]
    for index in (4, 0, 2):
        picture, label = data[index]
        scene = make_scene(7, index, image_size=(48, 72), difficulty="easy")
        assert picture.dtype == torch.uint8
        assert picture.shape == (3, 48, 72)
        assert scene.image.size == (72, 48)
        assert np.array_equal(picture.permute(1, 2, 0).numpy(), pixels(scene))
        assert label == scene.label


@pytest.mark.parametrize("size", [16, (16, 40), (96, 33), 256])
def test_any_size_can_be_drawn(size: int | tuple[int, int]) -> None:
    height, width = (size, size) if isinstance(size, int) else size
    for index in range(15):
        scene = make_scene(2, index, image_size=size)
        assert scene.image.size == (width, height)
        assert scene.image.mode == "RGB"
        assert all(thing.mask.any() for thing in scene.objects)


def test_bad_arguments_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'hard'.*easy, full"):
        make_scene(0, 0, difficulty="hard")
    with pytest.raises(ValueError, match=r"'hard'.*easy, full"):
        ScenesDataset(0, 10, difficulty="hard")
    with pytest.raises(ValueError, match=r"image_size.*16.*\(64, 8\)"):
        make_scene(0, 0, image_size=(64, 8))
    with pytest.raises(ValueError, match="0 or more, got -1 and 0"):
        make_scene(-1, 0)
    with pytest.raises(ValueError, match="0 or more, got -1"):
        ScenesDataset(-1, 10)
    with pytest.raises(ValueError, match="length"):
        ScenesDataset(0, 0)
    for index in (-1, 10):
        with pytest.raises(IndexError, match="data set of 10"):
            ScenesDataset(0, 10)[index]
