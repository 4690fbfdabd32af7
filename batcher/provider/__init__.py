"""Vendors, each a file that builds calls and reads answers; and the wire that carries them."""

from collections.abc import Mapping
from typing import Final

from batcher.provider.fal import FAL
from batcher.provider.provider import Provider
from batcher.provider.runcomfy import RUNCOMFY

PROVIDERS: Final[Mapping[str, Provider]] = {one.name: one for one in (RUNCOMFY, FAL)}
"""By the name that a manifest gives."""
FIRST: Final = RUNCOMFY.name
"""Is meant where no provider is named."""
