from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from batcher.catalog import bundled
from batcher.errors import Fault, ManifestFaulty
from batcher.hosting.inline import ImageFactsCache
from batcher.job import Spec
from batcher.manifest.expand import Expansion, Options
from batcher.manifest.manifest import open_manifest

MODEL = "google/nano-banana/pro/edit"


class Folder:
    """A folder of manifests, rows and photos, and what becomes of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.expansion_counts: Any = None

    def write(self, name: str, text: str | bytes) -> "Folder":
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return self

    def photo(self, name: str, size: tuple[int, int] = (40, 30), kind: str | None = None) -> "Folder":
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 60).convert("RGB").save(self.path / name, kind)
        return self

    def jobs(
        self, name: str = "m.yaml", options: Options | None = None, reject: Any = None, *, capped: bool = False
    ) -> list[Spec]:
        manifest = open_manifest(str(self.path / name))
        jobs = Expansion(manifest, bundled()[MODEL], ImageFactsCache(), options or Options(), reject, capped=capped)
        self.expansion_counts = jobs.expansion_counts
        return [spec for spec, chosen in jobs if chosen]

    def faults(self, name: str = "m.yaml", options: Options | None = None) -> list[str]:
        with pytest.raises(ManifestFaulty) as caught:
            self.jobs(name, options)
        self.count = caught.value.count
        return [self.said(fault) for fault in caught.value.faults]

    def said(self, fault: Fault) -> str:
        return str(fault).replace(f"{self.path}/", "").replace(str(self.path), "FOLDER")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def yaml(folder: Folder) -> Callable[[str], Folder]:
    """Write a manifest for the bundled model."""

    def write(text: str) -> Folder:
        return folder.write("m.yaml", f"model: {MODEL}\n{text}")

    return write
