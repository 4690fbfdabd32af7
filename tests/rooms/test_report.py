"""What is seen in pictures, and how it gets into a page."""

import io
import json
import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from batcher.show.report.album import Album, PictureFacts, PictureToLook
from batcher.show.report.flags import DuplicateFinder, flags
from batcher.show.report.report import in_page


def drawn(width: int, height: int, seed: int = 1) -> Image.Image:
    """Draw something that has shapes."""
    picture = Image.new("RGB", (width, height), (200, 190, 170))
    pen = ImageDraw.Draw(picture)
    for n in range(9):
        x, y = (n * 37 * seed) % 80 / 100 * width, (n * 53 * seed) % 80 / 100 * height
        pen.ellipse((x, y, x + width / 4, y + height / 5), fill=(n * 28, 255 - n * 20, (seed * n * 40) % 255))
    return picture


See = Callable[..., PictureFacts]


@pytest.fixture
def see(tmp_path: Path) -> See:
    def look(picture: Image.Image, form: str = "PNG", **how: object) -> PictureFacts:
        out = io.BytesIO()
        picture.save(out, form, **how)
        found = seen(tmp_path, out.getvalue())
        assert isinstance(found, PictureFacts)
        return found

    return look


def seen(folder: Path, content: bytes, name: str = "a.png") -> PictureFacts | str | None:
    (folder / name).write_bytes(content)
    digest = sha256(content).hexdigest()
    album = Album(folder)
    album.look_at([PictureToLook(folder / name, digest, original=True)])
    album.close()
    return album.of(digest) or album.trouble(digest)


def test_a_picture_has_its_own_size_upright(see: See) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = see(drawn(3000, 1500), "JPEG", exif=exif)
    assert (found.width, found.height) == (1500, 3000)
    assert see(drawn(640, 480)).width == 640


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_kind_of_picture_gets_a_thumbnail(tmp_path: Path, mode: str) -> None:
    out = io.BytesIO()
    picture = (
        drawn(600, 300).convert("L").convert("I").convert("I;16") if mode == "I;16" else drawn(600, 300).convert(mode)
    )
    picture.save(out, "TIFF" if mode == "CMYK" else "PNG")
    assert isinstance(seen(tmp_path, out.getvalue()), PictureFacts)
    thumb, large = sorted((tmp_path / "thumbs").rglob("*.webp"), key=lambda file: len(file.name))
    with Image.open(thumb) as small, Image.open(large) as whole:
        assert (small.size, whole.size) == ((400, 200), (600, 300))


def test_what_cannot_be_seen_is_said(tmp_path: Path) -> None:
    assert seen(tmp_path, b"no picture") == "unreadable"
    whole = io.BytesIO()
    drawn(300, 300).save(whole, "PNG")
    assert seen(tmp_path, whole.getvalue()[:2000]) == "unreadable"
    album = Album(tmp_path)
    (tmp_path / "b").write_bytes(whole.getvalue())
    album.look_at([PictureToLook(tmp_path / "gone", "11" * 32), PictureToLook(tmp_path / "b", "22" * 32)])
    assert (album.trouble("11" * 32), album.trouble("22" * 32)) == ("missing", "changed")
    album.close()


def test_a_line_that_was_cut_off_is_seen_again(tmp_path: Path) -> None:
    out = io.BytesIO()
    drawn(300, 300).save(out, "PNG")
    seen(tmp_path, out.getvalue())
    file = tmp_path / "thumbs" / "looks.jsonl"
    file.write_text(file.read_text()[:90])
    assert isinstance(seen(tmp_path, out.getvalue()), PictureFacts)


def test_flags_name_what_is_odd(see: See) -> None:
    photo, asked = drawn(900, 900), {"aspect_ratio": "4:5", "resolution": "1K"}
    good = see(drawn(819, 1024, seed=2), "JPEG")
    assert flags(asked, good, see(photo)) == {}
    assert set(flags(asked, see(Image.new("RGB", (819, 1024), (250, 250, 248))), None)) == {"blank"}
    assert set(flags(asked, see(drawn(1024, 819, seed=2)), None)) == {"shape"}
    assert set(flags(asked, see(drawn(400, 500, seed=2)), None)) == {"size"}
    assert flags({"aspect_ratio": "auto", "resolution": "best"}, see(drawn(40, 50, seed=2)), None) == {}
    again = see(photo.resize((1024, 1024)), "JPEG", quality=70)
    assert set(flags({}, again, see(photo))) == {"unchanged"}
    pen = ImageDraw.Draw(photo)
    pen.rectangle((0, 0, 899, 200), fill=(20, 30, 40))
    assert flags({}, see(photo), see(drawn(900, 900))) == {}


def test_twins_are_equal_pictures_and_not_alike_ones(see: See) -> None:
    twins = DuplicateFinder()
    pictures = [
        drawn(500, 500),
        drawn(500, 500, seed=3),
        drawn(500, 500),
        Image.new("RGB", (9, 9)),
        Image.new("RGB", (9, 9)),
    ]
    for place, picture in enumerate(pictures):
        twins.take(place, see(picture))
    twins.take(5, see(drawn(400, 400), "JPEG", quality=80))
    assert twins.groups() == [[0, 2, 5]]  # pictures of one colour are flagged as such


ANY = st.text(st.characters())  # lone halves of pairs too


@given(ANY | st.dictionaries(ANY, ANY))
def test_data_in_a_page_ends_no_element_and_comes_back_as_it_was(value: object) -> None:
    text = in_page(value)
    assert not set(text) & set("<>&")
    assert json.loads(text.encode("utf-8", "backslashreplace")) == value


def test_an_output_that_is_its_own_original_is_both(tmp_path: Path) -> None:
    out = io.BytesIO()
    drawn(900, 900).save(out, "PNG")
    (tmp_path / "a.png").write_bytes(out.getvalue())
    digest = sha256(out.getvalue()).hexdigest()
    album = Album(tmp_path)
    album.look_at(
        [PictureToLook(tmp_path / "gone.png", digest, original=True), PictureToLook(tmp_path / "a.png", digest)]
    )
    album.close()
    assert isinstance(album.of(digest), PictureFacts) and album.trouble(digest) is None
    assert (tmp_path / album.view(digest)).is_file()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF"])
def test_a_damaged_picture_is_said_to_be_one_whatever_its_decoder_raises(tmp_path: Path, form: str) -> None:
    out, chance = io.BytesIO(), random.Random(form)
    drawn(64, 64).save(out, form)
    for _ in range(60):
        content = bytearray(out.getvalue())
        for _ in range(chance.randrange(1, 12)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        assert (
            isinstance(seen(tmp_path, bytes(content)), PictureFacts) or seen(tmp_path, bytes(content)) == "unreadable"
        )
