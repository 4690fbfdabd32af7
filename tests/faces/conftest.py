from tests.real.conftest import api, batcher

__all__ = ["api", "batcher"]
