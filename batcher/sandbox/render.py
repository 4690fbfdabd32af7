"""Makes a rehearsal's pictures with Pillow: the product of the photo, cut out and put on the scene of the prompt."""

import hashlib
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from batcher.sandbox.webm import webm

Colour = tuple[int, int, int]
_LONG_SIDE: Final = {"1K": 1024, "2K": 2048, "4K": 4096}


@dataclass(frozen=True, slots=True)
class _Scene:
    words: tuple[str, ...]
    wall: tuple[Colour, Colour]
    """From top to horizon."""
    table: tuple[Colour, Colour]
    """From horizon to the front."""
    grain: int
    lights: int
    warmth: float = 1.0


_SCENES: Final = (
    _Scene(
        ("kitchen", "breakfast", "morning"),
        ((255, 250, 238), (238, 222, 196)),
        ((203, 164, 118), (158, 114, 72)),
        26,
        9,
    ),
    _Scene(("slate", "stone", "concrete"), ((132, 140, 148), (88, 95, 103)), ((62, 67, 74), (34, 37, 42)), 34, 0),
    _Scene(
        ("marble", "bath", "spa", "white"),
        ((252, 252, 252), (228, 232, 236)),
        ((244, 245, 247), (206, 211, 218)),
        10,
        3,
    ),
    _Scene(
        ("forest", "moss", "garden", "green", "leaf"),
        ((158, 190, 140), (62, 96, 60)),
        ((92, 84, 56), (46, 50, 30)),
        40,
        12,
    ),
    _Scene(
        ("beach", "sand", "sea", "summer"),
        ((150, 206, 236), (222, 240, 246)),
        ((238, 218, 176), (206, 176, 126)),
        22,
        5,
    ),
    _Scene(
        ("sunset", "evening", "warm", "autumn"),
        ((96, 48, 82), (248, 156, 92)),
        ((120, 66, 48), (52, 28, 30)),
        22,
        14,
        1.08,
    ),
    _Scene(("neon", "night", "club", "cyber"), ((18, 10, 44), (92, 22, 120)), ((26, 16, 58), (8, 6, 22)), 12, 16),
    _Scene(("snow", "winter", "ice"), ((206, 222, 240), (238, 244, 250)), ((250, 252, 255), (214, 226, 240)), 14, 10),
    _Scene(
        ("wood", "desk", "oak", "workshop"), ((214, 206, 196), (172, 158, 142)), ((168, 122, 80), (104, 70, 42)), 30, 2
    ),
    _Scene(
        ("studio", "pastel", "pink", "plain"),
        ((250, 222, 220), (244, 200, 204)),
        ((246, 208, 210), (226, 176, 184)),
        6,
        0,
    ),
)


def render(inputs: Mapping[str, Any], photos: Sequence[bytes], index: int) -> bytes:
    """Make output `index` (from 1) of a request: encoded in the format, ratio and size that it asks for."""
    prompt = str(inputs.get("prompt", ""))
    chance = random.Random(hashlib.sha256(f"{prompt} {index}".encode()).digest())
    photo = _opened(photos[0]) if photos else None
    size = _size(inputs, photo)
    scene = _scene(prompt, chance)
    picture = _backdrop(scene, size, chance)
    if photo is not None:
        cut = _cut_out(photo)
        picture = _graded(photo, size, scene, chance) if cut is None else _placed(picture, cut, chance)
    else:
        _still_life(picture, chance)
    return _encoded(_finished(picture, scene), str(inputs.get("output_format", "png")))


def render_video(inputs: Mapping[str, Any], photos: Sequence[bytes]) -> bytes:
    """Make a slow zoom into the photo, as a WebM film."""
    photo = ImageOps.fit(_opened(photos[0]), (480, 360))
    frames = []
    for step in range(max(6, int(12 * float(inputs.get("duration", 1))))):
        zoom = 1 + step * 0.01
        width, height = int(480 / zoom), int(360 / zoom)
        left, top = (480 - width) // 2, (360 - height) // 2
        frames.append(photo.crop((left, top, left + width, top + height)).resize((480, 360)))
    return webm(frames, 12)


def why_unreadable(content: bytes) -> str:
    """Return why a photo cannot be decoded, nothing where it can."""
    try:
        _opened(content)
    except Exception as error:  # noqa: BLE001 - decoders of damaged pictures raise what they like
        return f"{type(error).__name__}: {error}"
    return ""


def _opened(content: bytes) -> Image.Image:
    opened = Image.open(io.BytesIO(content))
    opened.draft("RGB", (2048, 2048))
    photo: Image.Image = ImageOps.exif_transpose(opened)
    if photo.has_transparency_data:
        white = Image.new("RGBA", photo.size, "white")
        white.alpha_composite(photo.convert("RGBA"))
        photo = white
    return photo.convert("RGB")


def _size(inputs: Mapping[str, Any], photo: Image.Image | None) -> tuple[int, int]:
    side = _LONG_SIDE.get(str(inputs.get("resolution", "1K")), 1024)
    ratio = str(inputs.get("aspect_ratio", "auto"))
    if ":" in ratio:
        across, down = (int(part) for part in ratio.split(":"))
    else:
        across, down = photo.size if photo else (1, 1)
    if across >= down:
        return side, max(1, round(side * down / across))
    return max(1, round(side * across / down)), side


def _scene(prompt: str, chance: random.Random) -> _Scene:
    text = prompt.lower()
    what, _, where = text.partition(" on ")
    text = where or what  # a sand-coloured bottle on marble stands on marble
    found = [(text.find(word), scene) for scene in _SCENES for word in scene.words if word in text]
    return min(found, key=lambda pair: pair[0])[1] if found else chance.choice(_SCENES)


def _gradient(size: tuple[int, int], top: Colour, bottom: Colour) -> Image.Image:
    ramp = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), ramp)


def _backdrop(scene: _Scene, size: tuple[int, int], chance: random.Random) -> Image.Image:
    """Draw a wall, a table with a grain, and lights out of focus; at a small size, then enlarged: it is soft anyway."""
    width, height = (max(2, side // 2) for side in size)
    horizon = int(height * 0.62)
    picture = Image.new("RGB", (width, height))
    picture.paste(_gradient((width, horizon), *scene.wall))
    table = _gradient((width, height - horizon), *scene.table)
    if scene.grain:
        across, down = width // 24 + 2, height - horizon
        grain = Image.frombytes("L", (across, down), chance.randbytes(across * down)).resize(table.size)
        noise = grain.point(lambda value: 128 + (value - 128) * scene.grain // 64)
        table = Image.blend(table, ImageChops.overlay(table, Image.merge("RGB", [noise] * 3)), 0.45)
    picture.paste(table, (0, horizon))
    glow = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(glow)
    for _ in range(scene.lights):
        x, y, r = chance.uniform(0, width), chance.uniform(0, horizon * 0.8), width * chance.uniform(0.02, 0.07)
        tint = tuple(int(part * 0.5) for part in scene.wall[1])
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tint)
    picture = ImageChops.screen(picture, glow.filter(ImageFilter.GaussianBlur(width / 60)))
    seam = picture.crop((0, horizon - 8, width, horizon + 8)).filter(ImageFilter.GaussianBlur(3))
    picture.paste(seam, (0, horizon - 8))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _cut_out(photo: Image.Image) -> Image.Image | None:
    """Cut the product out of an even backdrop; None where the backdrop is not even."""
    small = photo.copy()
    small.thumbnail((1200, 1200))
    soft = small.filter(ImageFilter.GaussianBlur(2))
    width, height = small.size
    border = _even_backdrop(soft)
    if border is None:
        return None
    mask = _unlike(soft, border)
    mask = (
        mask.filter(ImageFilter.MedianFilter(5)).filter(ImageFilter.MinFilter(3)).filter(ImageFilter.GaussianBlur(1.2))
    )
    box = mask.getbbox()
    if box is None or (box[2] - box[0]) * (box[3] - box[1]) < 0.02 * width * height:
        return None
    small.putalpha(mask)
    return small.crop(box)


def _unlike(soft: Image.Image, backdrop: Image.Image) -> Image.Image:
    """Mark what is not backdrop: of another hue, brighter, or far darker. A shadow is only a little darker."""
    light, blue, red = soft.convert("YCbCr").split()
    light_there, blue_there, red_there = backdrop.convert("YCbCr").split()
    hue = ImageChops.add(ImageChops.difference(blue, blue_there), ImageChops.difference(red, red_there))
    brighter, darker = ImageChops.subtract(light, light_there), ImageChops.subtract(light_there, light)
    marks = [(hue, 17), (brighter, 14), (darker, 80)]
    found = Image.new("L", soft.size)
    for channel, limit in marks:
        found = ImageChops.lighter(found, channel.point([255 if value > limit else 0 for value in range(256)]))
    return found


def _even_backdrop(soft: Image.Image) -> Image.Image | None:
    """Rebuild the backdrop from the photo's edges, row by row from left to right."""
    width, height = soft.size
    left, right = soft.crop((0, 0, 8, height)), soft.crop((width - 8, 0, width, height))
    left, right = left.resize((1, height)), right.resize((1, height))
    spread = ImageChops.difference(left, right).getextrema()
    if max(high for _, high in spread) > 60:  # type: ignore[misc]  # noqa: PLR2004 - the sides differ: no backdrop
        return None
    ramp = Image.linear_gradient("L").rotate(90).resize((width, height))
    return Image.composite(right.resize((width, height)), left.resize((width, height)), ramp)


def _placed(picture: Image.Image, cut: Image.Image, chance: random.Random) -> Image.Image:
    """Stand the product on the table, with a shadow and a faint reflection."""
    width, height = picture.size
    scale = min(width * 0.62 / cut.width, height * 0.62 / cut.height)
    cut = cut.resize((max(1, int(cut.width * scale)), max(1, int(cut.height * scale))), Image.Resampling.LANCZOS)
    left = int((width - cut.width) / 2 + width * chance.uniform(-0.06, 0.06))
    foot = int(height * chance.uniform(0.8, 0.86))
    alpha = cut.getchannel("A")
    shade = Image.new("L", picture.size)
    flat = alpha.resize((int(cut.width * 1.08), max(2, cut.height // 7)))
    shade.paste(flat, (left + int(cut.width * 0.05), foot - int(flat.height * 0.62)))
    shade = shade.filter(ImageFilter.GaussianBlur(max(3, width / 60))).point(lambda value: int(value * 0.62))
    picture = Image.composite(Image.new("RGB", picture.size, (14, 12, 16)), picture, shade)
    mirror = ImageOps.flip(cut)
    fade = Image.linear_gradient("L").resize(mirror.size).point(lambda value: max(0, 46 - value))
    picture.paste(mirror, (left, foot - 2), ImageChops.multiply(mirror.getchannel("A"), fade))
    picture.paste(cut, (left, foot - cut.height), alpha)
    return picture


def _graded(photo: Image.Image, size: tuple[int, int], scene: _Scene, chance: random.Random) -> Image.Image:
    """Keep the whole photo, in the colours of the scene, where there is no backdrop to cut from."""
    wrapped = ImageOps.fit(photo, size, Image.Resampling.LANCZOS)
    toned = ImageOps.colorize(ImageOps.autocontrast(wrapped.convert("L")), scene.table[1], scene.wall[0], scene.wall[1])
    return ImageEnhance.Contrast(Image.blend(wrapped, toned, chance.uniform(0.3, 0.6))).enhance(1.08)


def _still_life(picture: Image.Image, chance: random.Random) -> None:
    """Put a few simple bodies on the table, where there is no photo to begin with."""
    width, height = picture.size
    draw = ImageDraw.Draw(picture)
    for _ in range(chance.randint(2, 5)):
        r, x = width * chance.uniform(0.05, 0.13), width * chance.uniform(0.15, 0.85)
        y = height * chance.uniform(0.66, 0.82)
        base = tuple(chance.randint(60, 230) for _ in range(3))
        for step in range(24):
            part = step / 24
            lit = tuple(min(255, int(value * (0.55 + 0.75 * part))) for value in base)
            k = r * (1 - part)
            draw.ellipse(
                (x - k - r * part * 0.3, y - k - r * part * 0.3, x + k - r * part * 0.3, y + k - r * part * 0.3),
                fill=lit,
            )


def _finished(picture: Image.Image, scene: _Scene) -> Image.Image:
    """Darken the corners and set the warmth of the light."""
    shade = ImageOps.invert(Image.radial_gradient("L")).resize(picture.size).point(lambda value: 190 + value // 4)
    lit = ImageChops.multiply(picture, Image.merge("RGB", [shade] * 3))
    return ImageEnhance.Color(lit).enhance(scene.warmth)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "jpeg":
        picture.save(out, "JPEG", quality=88)
    elif kind == "webp":
        picture.save(out, "WEBP", quality=86, method=2)
    else:
        picture.save(out, "PNG", compress_level=1)
    return out.getvalue()
