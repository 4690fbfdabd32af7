"""A file that came is told whole from damaged, by its structure."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from batcher.outputs.media import NotMedia, examine


def saved(form: str, **options: Any) -> bytes:
    picture = Image.effect_noise((90, 60), 40).convert("RGB")
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


FORMS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 92},
    "WEBP": {"lossless": True},
    "GIF": {},
    "TIFF": {},
    "BMP": {},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_image_is_known_with_its_size(form: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(saved(form, **FORMS[form]))
    media = examine((tmp_path / "x").read_bytes())
    assert (media.width, media.height) == (90, 60)
    assert media.mime.startswith("image/")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.99, 0.7, 0.3])
def test_an_image_cut_short_is_no_image(form: str, share: float, tmp_path: Path) -> None:
    content = saved(form, **FORMS[form])
    (tmp_path / "x").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(NotMedia):
        examine((tmp_path / "x").read_bytes())


def test_one_wrong_bit_of_a_png_is_seen_wherever_it_is(tmp_path: Path) -> None:
    content = saved("PNG")
    for place in range(0, len(content), 97):
        broken = bytearray(content)
        broken[place] ^= 4
        (tmp_path / "x").write_bytes(broken)
        with pytest.raises(NotMedia):
            examine((tmp_path / "x").read_bytes())


def test_a_photo_with_a_thumbnail_is_not_whole_by_the_thumbnails_end(tmp_path: Path) -> None:
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0\0\0\0\0" + saved("JPEG")
    content = saved("JPEG", quality=92, exif=exif)
    (tmp_path / "x").write_bytes(content)
    assert examine((tmp_path / "x").read_bytes()).extension == "jpg"
    (tmp_path / "x").write_bytes(content[:-500])
    with pytest.raises(NotMedia):
        examine((tmp_path / "x").read_bytes())


def test_what_follows_an_image_is_no_fault(tmp_path: Path) -> None:
    for form in ("PNG", "JPEG", "WEBP"):
        (tmp_path / "x").write_bytes(saved(form, **FORMS[form]) + b"\0" * 100)
        examine((tmp_path / "x").read_bytes())
