"""Types of a reader's part that is at work while records keep coming."""

from typing import Generic, TypeVar

from alphapulse._core.consumer import Consumer
from alphapulse._core.records import Records

BatchT = TypeVar("BatchT", bound=Records)

class Cursor(Generic[BatchT]):
    look_at_ns: int
    def _follow(self, consumer: Consumer | None, nothing: BatchT, spin_ns: int) -> None: ...
    def read(self, limit: int = 1024) -> BatchT: ...
    def wait(self, timeout: float | None = None) -> bool: ...
