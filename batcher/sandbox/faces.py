"""The protocols that the sandbox speaks, by name."""

from collections.abc import Mapping
from typing import Final

from batcher.sandbox.face import Face
from batcher.sandbox.fal import FalFace
from batcher.sandbox.runcomfy import RunComfyFace

FACES: Final[Mapping[str, Face]] = {one.name: one for one in (RunComfyFace(), FalFace())}
