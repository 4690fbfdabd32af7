"""Renders the product photographs of `manifests/photos/` with the path tracer Mitsuba 3 (`pip install mitsuba`).

Each product is a profile turned on a lathe, in front of an even sweep, under soft light: what a small studio's
photographs look like. Usage: python scripts/photos.py [SAMPLES [NAME ...]]
"""

import math
import sys
import tempfile
from pathlib import Path

import mitsuba as mi
import numpy as np
from PIL import Image

mi.set_variant("scalar_rgb")

PHOTOS = Path(__file__).parent.parent / "manifests" / "photos"
SIDE = 900
TURNS = 160


def smooth(points: list[tuple[float, float]], steps: int = 10) -> list[tuple[float, float]]:
    """Round a profile of (radius, height) points: Catmull-Rom; a point that stands twice stays a corner."""
    ends = [points[0], *points, points[-1]]
    found = []
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        if b == c:
            continue
        for step in range(steps):
            t = step / steps
            found.append(
                tuple(
                    0.5 * (2 * q + (r - p) * t + (2 * p - 5 * q + 4 * r - s) * t * t + (3 * q - p - 3 * r + s) * t**3)
                    for p, q, r, s in zip(a, b, c, d, strict=True)
                )
            )
    return [*found, points[-1]]


def lathe(name: str, points: list[tuple[float, float]], folder: Path) -> str:
    """Turn a profile around the upright axis; write it as an OBJ file, and give its path."""
    profile = smooth(points)
    lines = []
    for radius, height in profile:
        for turn in range(TURNS):
            angle = 2 * math.pi * turn / TURNS
            lines.append(
                f"v {max(radius, 1e-4) * math.cos(angle):.5f} {height:.5f} {max(radius, 1e-4) * math.sin(angle):.5f}"
            )
    for row in range(len(profile) - 1):
        for turn in range(TURNS):
            a, b = row * TURNS + turn + 1, row * TURNS + (turn + 1) % TURNS + 1
            lines.append(f"f {a} {a + TURNS} {b + TURNS} {b}")
    file = folder / f"{name}.obj"
    file.write_text("\n".join(lines))
    return str(file)


def handle(folder: Path) -> str:
    """Bend a tube into a mug's handle."""
    lines, steps, around = [], 60, 24
    for step in range(steps + 1):
        angle = math.pi * (step / steps - 0.5) * 1.15
        x, y = 0.86 + 0.5 * math.cos(angle), 0.95 + 0.52 * math.sin(angle)
        for turn in range(around):
            t = 2 * math.pi * turn / around
            r = 0.1 + 0.03 * math.cos(angle)
            lines.append(
                f"v {x + r * math.cos(t) * math.cos(angle):.5f} {y + r * math.cos(t) * math.sin(angle):.5f} {r * 1.3 * math.sin(t):.5f}"
            )
    for step in range(steps):
        for turn in range(around):
            a, b = step * around + turn + 1, step * around + (turn + 1) % around + 1
            lines.append(f"f {a} {a + around} {b + around} {b}")
    file = folder / "handle.obj"
    file.write_text("\n".join(lines))
    return str(file)


def sweep(folder: Path) -> str:
    """Bend a wide sheet of paper from the table up into the wall."""
    arc = [
        (-4 - 3 * math.sin(angle), 3 - 3 * math.cos(angle)) for angle in (math.pi / 2 * step / 24 for step in range(25))
    ]
    profile = [(20.0, 0.0), *arc, (-7.0, 30.0)]
    lines = [f"v {x} {y:.4f} {z:.4f}" for z, y in profile for x in (-40, 40)]
    lines += [f"f {2 * row + 1} {2 * row + 2} {2 * row + 4} {2 * row + 3}" for row in range(len(profile) - 1)]
    file = folder / "sweep.obj"
    file.write_text("\n".join(lines))
    return str(file)


def glossy(red: float, green: float, blue: float, rough: float = 0.25, metal: float = 0.0) -> dict:
    """Give a coated material."""
    return {
        "type": "twosided",
        "bsdf": {
            "type": "principled",
            "base_color": {"type": "rgb", "value": [red, green, blue]},
            "roughness": rough,
            "metallic": metal,
            "specular": 0.5,
            "clearcoat": 0.6 if metal == 0 else 0.0,
            "clearcoat_gloss": 0.9,
        },
    }


def body(file: str, material: dict) -> dict:
    """Give a shape for the scene."""
    return {"type": "obj", "filename": file, "face_normals": False, "bsdf": material}


def products(folder: Path) -> dict[str, dict]:
    """Give the shapes of every product, by name."""
    mug = [
        (0, 0.02),
        (0.74, 0.02),
        (0.8, 0.08),
        (0.82, 0.3),
        (0.84, 1.7),
        (0.85, 1.84),
        (0.82, 1.88),
        (0.78, 1.84),
        (0.76, 1.6),
        (0.74, 0.3),
        (0.6, 0.16),
        (0, 0.14),
    ]
    vase = [
        (0, 0.02),
        (0.42, 0.02),
        (0.52, 0.1),
        (0.86, 0.8),
        (0.8, 1.35),
        (0.36, 1.85),
        (0.3, 2.1),
        (0.44, 2.4),
        (0.4, 2.42),
        (0.26, 2.1),
        (0.3, 1.8),
        (0.7, 1.3),
        (0, 0.3),
    ]
    bottle = [
        (0, 0.02),
        (0.5, 0.02),
        (0.56, 0.06),
        (0.57, 0.2),
        (0.57, 1.35),
        (0.5, 1.6),
        (0.24, 1.78),
        (0.2, 1.86),
        (0, 1.86),
    ]
    cap = [(0, 1.84), (0.25, 1.84), (0.25, 1.84), (0.25, 2.28), (0.22, 2.32), (0, 2.32)]
    band = [(0.572, 0.5), (0.58, 0.5), (0.58, 0.5), (0.58, 1.1), (0.572, 1.1)]
    jar = [(0, 0.02), (0.84, 0.02), (0.92, 0.1), (0.92, 0.1), (0.92, 0.72), (0.86, 0.8), (0, 0.8)]
    lid = [(0, 0.82), (0.94, 0.82), (0.95, 0.86), (0.95, 1.18), (0.9, 1.24), (0, 1.25)]
    bowl = [
        (0, 0.05),
        (0.4, 0.05),
        (0.44, 0.0),
        (0.5, 0.02),
        (0.5, 0.08),
        (0.9, 0.4),
        (1.12, 0.86),
        (1.16, 1.0),
        (1.1, 1.02),
        (1.02, 0.84),
        (0.8, 0.46),
        (0, 0.22),
    ]
    candle = [
        (0, 0.02),
        (0.62, 0.02),
        (0.68, 0.08),
        (0.68, 0.08),
        (0.68, 1.3),
        (0.66, 1.36),
        (0.62, 1.3),
        (0.61, 0.98),
        (0, 0.96),
    ]
    wick = [(0, 0.9), (0.025, 0.9), (0.025, 1.16), (0, 1.17)]
    return {
        "mug": {
            "cup": body(lathe("mug", mug, folder), glossy(0.62, 0.1, 0.07)),
            "handle": body(handle(folder), glossy(0.62, 0.1, 0.07)),
        },
        "vase": {"vase": body(lathe("vase", vase, folder), glossy(0.05, 0.2, 0.38, 0.3))},
        "bottle": {
            "glass": body(lathe("bottle", bottle, folder), glossy(0.03, 0.17, 0.1, 0.15)),
            "label": body(lathe("band", band, folder), glossy(0.86, 0.66, 0.34, 0.7)),
            "cap": body(lathe("cap", cap, folder), glossy(0.9, 0.62, 0.28, 0.22, 1.0)),
        },
        "jar": {
            "jar": body(lathe("jar", jar, folder), glossy(0.86, 0.48, 0.4, 0.35)),
            "lid": body(lathe("lid", lid, folder), glossy(0.3, 0.05, 0.12, 0.3)),
        },
        "bowl": {"bowl": body(lathe("bowl", bowl, folder), glossy(0.52, 0.26, 0.1, 0.45))},
        "candle": {
            "glass": body(lathe("candle", candle, folder), glossy(0.24, 0.08, 0.42, 0.25)),
            "wick": body(lathe("wick", wick, folder), glossy(0.1, 0.08, 0.05, 0.9)),
        },
    }


def scene(shapes: dict, samples: int, folder: Path) -> dict:
    """Put a product on the sweep, in front of the camera, between the lights."""
    to = mi.ScalarTransform4f
    paper = {"type": "diffuse", "reflectance": {"type": "rgb", "value": [0.84, 0.84, 0.85]}}
    return {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 7},
        "sensor": {
            "type": "perspective",
            "fov": 27,
            "to_world": to().look_at(origin=[0, 2.35, 7.2], target=[0, 1.04, 0], up=[0, 1, 0]),
            "film": {"type": "hdrfilm", "width": SIDE, "height": SIDE, "rfilter": {"type": "gaussian"}},
            "sampler": {"type": "multijitter", "sample_count": samples},
        },
        "sweep": {"type": "obj", "filename": sweep(folder), "bsdf": {"type": "twosided", "bsdf": paper}},
        "sky": {"type": "constant", "radiance": {"type": "rgb", "value": [0.55, 0.55, 0.57]}},
        "key": {
            "type": "rectangle",
            "to_world": to().look_at(origin=[-4.2, 5.0, 3.2], target=[0, 0.9, 0], up=[0, 1, 0]).scale([1.7, 1.7, 1]),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": [6.4, 6.1, 5.7]}},
        },
        **shapes,
    }


def main() -> None:
    """Render what was asked for."""
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 144
    PHOTOS.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp())
    for name, shapes in products(work).items():
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        image = mi.render(mi.load_dict(scene(shapes, samples, work)))
        bitmap = mi.Bitmap(image).convert(mi.Bitmap.PixelFormat.RGB, mi.Struct.Type.UInt8, srgb_gamma=True)
        Image.fromarray(np.array(bitmap)).save(PHOTOS / f"{name}.jpg", quality=90)
        print(PHOTOS / f"{name}.jpg", flush=True)


if __name__ == "__main__":
    main()
