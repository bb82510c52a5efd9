"""The free photos in tutorials/photos/ are what the page beside them says."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parents[1] / "tutorials" / "photos"
ROWS = re.findall(
    r"^\| `(.+?)` \| (\d+) × (\d+) \| .+ \| (.+?) \|$",
    (FOLDER / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def test_every_photo_has_its_size_and_licence_on_the_page() -> None:
    assert {name for name, *_ in ROWS} == {path.name for path in FOLDER.iterdir()} - {"README.md"}
    for name, width, height, licence in ROWS:
        with Image.open(FOLDER / name) as photo:
            assert photo.format == "JPEG" and photo.size == (int(width), int(height)), name
            assert not photo.getexif(), name
        assert licence in ("CC0", "public domain"), name


def test_the_photos_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 700_000
