"""Files: names, media, the store, local images on their way out."""

import asyncio
import base64
import hashlib
import io
import json
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import text
from PIL import Image

from batcher.hosting.inline import (
    MAX_BYTES,
    MAX_PIXELS,
    ImageFacts,
    ImageFactsCache,
    ImageNotUsable,
    at_most,
    body,
    data_uri,
)
from batcher.job import Image as JobImage
from batcher.job import Spec
from batcher.manifest.names import folded, safe_name
from batcher.manifest.templates import slug
from batcher.outputs.download import Fetched, IncomingFile, fetch
from batcher.outputs.failures import Interrupted, UrlRefused, UrlUnusable, Wrong
from batcher.outputs.media import NotMedia, examine
from batcher.outputs.output_folder import OutputFolder
from batcher.outputs.sidecar import shortened, sidecar_file
from batcher.provider.calls import Download, WireFault
from batcher.sandbox.render import render, render_video
from tests.nights.memory import picture


@given(text())
def test_a_name_is_safe_whatever_it_was_made_of(given: str) -> None:
    name = safe_name(given, 20)
    for part in name.split("/"):
        assert part not in {"", ".", ".."}
        assert len(part.encode()) <= 200
        assert not part.startswith(".") and part == part.strip() and not part.endswith(".")
        assert not set(part) & set('<>:"\\|?*\0\n\x7f')
    assert safe_name(name, 20) == name, "to make a safe name safe changes nothing"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/abs/olute", "abs/olute"),
        ("con.txt", "_con.txt"),
        ("a/nul", "a/_nul"),
        (".hidden", "_hidden"),
        ("a. ", "a"),
        ("a\x00b\x1b", "a_b_"),
        ("e\u0301", "é"),
        ("...", "_"),
        ("", "_"),
        ("x" * 300, "x" * 200),
        ("杯" * 100, "杯" * 66),
    ],
)
def test_names_that_are_dangerous_somewhere(given: str, expected: str) -> None:
    assert safe_name(given) == expected


def test_slugs_keep_every_script() -> None:
    assert slug("磨砂玻璃 Bottle #2") == "磨砂玻璃-bottle-2"
    assert slug("  Crème brûlée!  ") == "crème-brûlée"
    assert slug("4:5") == "4-5"
    assert slug("हिन्दी शब्द") == "हिन्दी-शब्द"
    assert folded("É") == folded("e\u0301")


def encoded(kind: str, size: tuple[int, int] = (8, 6)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, kind)
    return out.getvalue()


FILM = render_video({"duration": 0.5}, [encoded("PNG", (64, 48))])


@pytest.mark.parametrize(
    ("content", "extension", "size"),
    [
        (encoded("PNG"), "png", (8, 6)),
        (encoded("JPEG"), "jpg", (8, 6)),
        (encoded("WEBP"), "webp", (8, 6)),
        (encoded("GIF"), "gif", (8, 6)),
        (b"\0\0\0\x18ftypisom" + bytes(12) + b"\0\0\0\x10moov" + bytes(8), "mp4", (None, None)),
        (b"\0\0\0\x14ftypqt  " + bytes(8) + b"\0\0\0\x10moov" + bytes(8) + b"\0\0\0\0mdatxyz", "mov", (None, None)),
        (FILM, "webm", (None, None)),
        (FILM.replace(b"webm", b"mkv ", 1), "mkv", (None, None)),
        (
            b"\x1a\x45\xdf\xa3\x88\x42\x82\x84webm\0\x18\x53\x80\x67\xff" + bytes(40),
            "webm",
            (None, None),
        ),  # a live stream
        (b"RIFF\x0c\0\0\0AVI LIST\0\0\0\0", "avi", (None, None)),
    ],
)
def test_the_extension_follows_the_bytes(
    tmp_path: Path, content: bytes, extension: str, size: tuple[int | None, int | None]
) -> None:
    (tmp_path / "x").write_bytes(content)
    media = examine((tmp_path / "x").read_bytes())
    assert (media.extension, (media.width, media.height)) == (extension, size)


def bomb() -> bytes:
    out = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"<html>an error page</html>", "it is not an image or video"),
        (b"", "it is not an image or video"),
        (FILM[: len(FILM) // 2], "it ends too soon"),
        (FILM[:70], "it ends too soon"),
        (FILM[:4] + b"\x01", "it ends too soon"),
        (FILM[:4] + b"\x81webm" + bytes(40), "has no film in it"),
        (b"RIFF\xff\0\0\0AVI LIST\0\0\0\0", "it ends too soon"),
        (b"<!--ftypisom--><html>sign in</html>", "it begins like a video"),
        (b"\0\0\0\x18ftypisom" + bytes(12) + b"\0\0\0\x10moov" + bytes(7), "it ends too soon"),
        (b"\0\0\0\x00ftypisom<html>", "it begins like a video"),
        (encoded("PNG", (400, 400))[:-200], "it cannot be decoded"),
        (encoded("ICO", (16, 16)), "which no model makes"),
        (bomb(), "over the cap of 128 megapixels"),
    ],
    ids=[
        "html",
        "empty",
        "film-cut",
        "film-head",
        "film-length",
        "film-of-nothing",
        "avi-cut",
        "html-like-video",
        "video-cut",
        "video-of-nothing",
        "truncated",
        "icon",
        "bomb",
    ],
)
def test_what_is_not_what_was_promised_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(NotMedia, match=why):
        examine((tmp_path / "x").read_bytes())


class Host:
    """A file host that answers in one way."""

    sent = 0

    def __init__(
        self, status: int = 200, content: bytes = b"", length: int | None = None, *, cut: bool = False
    ) -> None:
        self._download = Download(status, length, self._blocks(content, cut=cut))

    async def _blocks(self, content: bytes, *, cut: bool) -> AsyncIterator[bytes]:
        yield content
        if cut:
            raise ConnectionResetError("reset by peer")

    @asynccontextmanager
    async def download(self, url: str) -> AsyncIterator[Download | WireFault]:
        yield WireFault(sent=True, message="no such host") if "nowhere" in url else self._download

    async def send(self, call: object) -> WireFault:
        return WireFault(sent=False, message=str(call))

    def on_suspend(self) -> None:
        pass

    async def refresh(self) -> None:
        pass

    async def close(self) -> None:
        pass


async def test_a_download_is_whole_or_named(tmp_path: Path) -> None:
    store = OutputFolder(tmp_path)
    store.prepare()
    good = picture("a")

    async def got(host: Host, url: str = "https://h/x") -> object:
        return await fetch(url, host, store, "key", lambda got: got)

    whole = await got(Host(content=good, length=len(good)))
    assert isinstance(whole, Fetched) and whole.part.read_bytes() == good
    assert await got(Host(404)) == UrlRefused("HTTP 404")
    assert await got(Host(500)) == Interrupted("HTTP 500")
    assert await got(Host(), "https://nowhere/x") == Interrupted("no such host")
    assert await got(Host(content=good[:20], cut=True)) == Interrupted("reset by peer")
    assert isinstance(await got(Host(content=good, length=len(good) + 1)), Wrong)
    assert isinstance(await got(Host(content=b"<html>")), Wrong)
    inline = await got(Host(), "data:image/png;base64," + base64.b64encode(good).decode())
    assert isinstance(inline, Fetched) and inline.bytes == len(good)
    inline.part.unlink()
    assert isinstance(await got(Host(), "data:image/png;base64,a"), Wrong)
    assert isinstance(await got(Host(), "ftp://h/x"), UrlUnusable)
    assert isinstance(await got(Host(), "file:///etc/passwd"), UrlUnusable)
    shouted = await got(Host(content=good), "HTTPS://h/x")
    assert isinstance(shouted, Fetched)
    shouted.part.unlink()
    assert [file.name for file in (tmp_path / ".parts").iterdir()] == []


def put(store: OutputFolder, content: bytes, file: str, job_id: str) -> None:
    part = store.begin("p")
    part.write(content)
    part.close()
    store.place(part.file, file, job_id)


async def test_a_file_is_not_closed_under_the_thread_that_writes_it(tmp_path: Path) -> None:
    """The next file opened takes its number: the thread would write the picture into the ledger."""
    store = OutputFolder(tmp_path)
    store.prepare()
    coming = IncomingFile(store, "job-1", lambda fetched: fetched)
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        coming.write([b"first"])
        begun.set()
        go_on.wait(10)
        coming.write([b"second"])

    writing = asyncio.create_task(asyncio.to_thread(coming.do, slowly))
    await asyncio.to_thread(begun.wait, 10)
    coming.leave()
    assert coming.part is not None and store.part("job-1").read_bytes() == b"first"
    go_on.set()
    await writing
    assert coming.part is None and not store.part("job-1").exists()
    with pytest.raises(CancelledError):
        coming.do(coming.write, [b"third"])
    assert list(store.parts.iterdir()) == []


def test_what_stood_under_a_name_gives_way_and_is_never_deleted(tmp_path: Path) -> None:
    store = OutputFolder(tmp_path)
    store.prepare()
    for content in (b"one", b"two", b"two", b"three"):
        put(store, content, "files/a/b.png", "job")
    assert (tmp_path / "files/a/b.png").read_bytes() == b"three"
    kept = sorted((tmp_path / "replaced/job").iterdir())
    assert [file.read_bytes() for file in kept] == [b"two", b"one"]
    store.write_sidecar("files/a/b.json", {"x": 1}, "s")
    assert json.loads((tmp_path / "files/a/b.json").read_text()) == {"x": 1}
    store.close()
    assert not (tmp_path / ".parts").exists()
    assert sidecar_file("files/a.b/c.png") == "files/a.b/c.json"


def test_data_uris_are_shortened_to_their_digest() -> None:
    long = "data:image/png;base64," + "A" * 500
    found = shortened({"a": [long], "b": "data:,short", "c": 1})
    assert isinstance(found, dict)
    assert found["a"][0].startswith("data:image/png;base64;sha256=") and len(found["a"][0]) < 100
    assert (found["b"], found["c"]) == ("data:,short", 1)


def photo(path: Path, size: tuple[int, int], *, turned: bool = False) -> JobImage:
    image = Image.effect_noise(size, 80).convert("RGB")
    exif = image.getexif()
    if turned:
        exif[0x0112] = 6
    image.save(path, "JPEG", quality=95, exif=exif)
    look = ImageFactsCache().at(path)
    return JobImage(("image_urls", 0), path.name, look.sha256, look.bytes)


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_photo_is_sent_as_it_is_or_shrunk_and_turned_upright(tmp_path: Path) -> None:
    image = photo(tmp_path / "a.jpg", (1200, 600), turned=True)
    assert base64.b64decode(data_uri(image, tmp_path).partition(",")[2]) == (tmp_path / "a.jpg").read_bytes()
    shrunk = JobImage(image.field, image.path, image.sha256, image.bytes, max_side=300)
    assert opened(data_uri(shrunk, tmp_path)).size == (150, 300)
    spec = Spec("i", "n", "m", {"prompt": "p", "image_urls": ["sha256:..."]}, images=(image,))
    assert json.loads(body(spec, tmp_path))["image_urls"][0].startswith("data:image/jpeg;base64,")


@pytest.mark.long
def test_a_photo_of_over_ten_megabytes_fits_where_it_may_be_shrunk(tmp_path: Path) -> None:
    image = photo(tmp_path / "a.jpg", (5000, 4000))
    assert image.bytes > 10 * 2**20
    small = JobImage(image.field, image.path, image.sha256, image.bytes, max_side=4096)
    uri = data_uri(small, tmp_path)
    assert opened(uri).size == (4096, 3277)
    assert len(uri) * 3 / 4 <= MAX_BYTES + 100


@pytest.mark.long
def test_what_is_shrunk_has_no_more_pixels_than_are_sent_and_counts_by_what_it_comes_to(tmp_path: Path) -> None:
    Image.new("RGB", (9000, 9000), (9, 90, 200)).save(tmp_path / "a.png")
    look = ImageFactsCache().at(tmp_path / "a.png")
    image = JobImage(("x",), "a.png", look.sha256, look.bytes, max_side=8000)
    width, height = opened(data_uri(image, tmp_path)).size
    assert width == height and 31e6 < width * height <= MAX_PIXELS
    assert at_most(ImageFacts("", 50 * 2**20, "JPEG", 8000, 6000), 1000) < 3 * 2**20
    assert at_most(ImageFacts("", 50_000, "JPEG", 900, 600), 1000) == 50_000


def test_a_photo_that_vanished_or_changed_is_not_sent(tmp_path: Path) -> None:
    image = photo(tmp_path / "a.jpg", (20, 20))
    (tmp_path / "a.jpg").write_bytes(b"other")
    with pytest.raises(ImageNotUsable, match="has changed"):
        data_uri(image, tmp_path)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ImageNotUsable, match="can no longer be read"):
        data_uri(image, tmp_path)


def test_a_photo_that_is_cut_off_fails_its_job_and_not_the_run(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", (1200, 900))
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageNotUsable, match="is a JPEG that is cut off"):
        ImageFactsCache().at(tmp_path / "a.jpg")
    half = (tmp_path / "a.jpg").read_bytes()
    digest = hashlib.sha256(half).hexdigest()
    for max_side in (300, None):  # shrunk, and sent as it is
        with pytest.raises(ImageNotUsable, match="cannot be decoded"):
            data_uri(JobImage(("image_urls", 0), "a.jpg", digest, len(half), max_side=max_side), tmp_path)


def test_an_unchanged_photo_is_not_read_again(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", (20, 20))
    first = ImageFactsCache()
    look = first.at(tmp_path / "a.jpg")
    stat = (tmp_path / "a.jpg").stat()
    (tmp_path / "a.jpg").write_bytes(b"x" * stat.st_size)
    import os

    os.utime(tmp_path / "a.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert ImageFactsCache(dict(first.fresh)).at(tmp_path / "a.jpg") == look
    os.utime(tmp_path / "a.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(ImageNotUsable):
        ImageFactsCache(dict(first.fresh)).at(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_the_sandbox_renders_what_was_asked_for(kind: str) -> None:
    inputs = {"prompt": "on a slate table", "aspect_ratio": "16:9", "output_format": kind, "resolution": "1K"}
    one, other = (render(inputs, [encoded("JPEG", (300, 300))], index) for index in (1, 2))
    assert Image.open(io.BytesIO(one)).size == (1024, 576)
    assert Image.open(io.BytesIO(one)).format == kind.upper()
    assert one != other
    assert one == render(inputs, [encoded("JPEG", (300, 300))], 1)


def test_the_sandbox_edits_the_photo_and_can_do_without() -> None:
    noisy = io.BytesIO()
    Image.effect_noise((200, 150), 200).convert("RGB").save(noisy, "PNG")
    product = Image.new("RGBA", (200, 200))
    product.paste((200, 30, 30, 255), (60, 40, 140, 170))
    clear = io.BytesIO()
    product.save(clear, "PNG")
    for photos in ([], [noisy.getvalue()], [clear.getvalue()]):
        assert Image.open(io.BytesIO(render({"prompt": "plain"}, photos, 1))).width == 1024
    red = Image.open(io.BytesIO(render({"prompt": "white marble"}, [clear.getvalue()], 1))).convert("RGB")
    pixel = red.getpixel((512, 600))
    assert isinstance(pixel, tuple) and pixel[0] > 150 > pixel[1], "the product is not in the picture"
