"""The images of one job: local files found and measured, URLs kept as they are written; how a job id counts them."""

from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from batcher.catalog import Model
from batcher.hosting.inline import Looks, NotUsable, why_not
from batcher.job import Image
from batcher.manifest.manifest import Manifest

Path = tuple[str | int, ...]


class Bad(Exception):
    """A job cannot be made of this row; a fault is made of it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Media:
    """The images of one job: local files found and measured, URLs kept as they are written."""

    def __init__(self, model: Model, looks: Looks, manifest: Manifest, max_side: int | None) -> None:
        self._model = model
        self._looks = looks
        self._manifest = manifest
        self._max_side = max_side
        self.images: list[Image] = []
        self.sources: list[str] = []
        self.bytes = 0

    def put(self, field: str, path: Path, value: object) -> object:
        """Give the value of a media input as it is sent, with `sha256:HEX` in the place of each local image."""
        if isinstance(value, list):
            return [self.put(field, (*path, index), item) for index, item in enumerate(value)]
        return self._one(field, path, value) if isinstance(value, str) else value

    def _one(self, field: str, path: Path, text: str) -> str:
        self.sources.append(text)
        scheme = text.partition(":")[0].lower() if ":" in text[:12] else ""
        if scheme in {"http", "https", "data"}:
            return text
        if "://" in text:
            raise Bad(field, f"`{text}` is neither an https URL nor a local file")
        if not text.strip():
            raise Bad(field, "is an empty text where an image is wanted")
        try:
            look = self._looks.at(self._manifest.root / text)
        except NotUsable as why:
            raise Bad(field, str(why).replace(str(self._manifest.root / text), text)) from None
        if problem := why_not(look, self._max_side):
            raise Bad(field, f"{text} {problem}")
        self.bytes += look.bytes
        self.images.append(Image(path, text, look.sha256, look.bytes, self._max_side))
        return f"sha256:{look.sha256}"

    def counted(self, sent: Mapping[str, object], ignores: str | None) -> Mapping[str, object]:
        """Give the inputs as a job id counts them."""
        if not self.images and ignores is None:
            return sent
        local = {image.field: image for image in self.images}

        def count(path: Path, value: object) -> object:
            if isinstance(value, list):
                return [count((*path, index), item) for index, item in enumerate(value)]
            if image := local.get(path):
                size = {} if image.max_side is None else {"max_side": image.max_side}
                return {"sha256": image.sha256, **size}
            if ignores == "query" and isinstance(value, str) and path[0] in self._model.media:
                return _without_query(value)
            return value

        return {name: count((name,), value) for name, value in sent.items()}


def _without_query(url: str) -> str:
    return urlunsplit(urlsplit(url)._replace(query="")) if url.startswith(("http://", "https://")) else url
