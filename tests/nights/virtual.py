"""An event loop whose time is not real: it jumps to whatever is due next, and runs what would be threads in place."""

import asyncio
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Asleep(Exception):
    """Nothing will ever happen again: a run that waits for ever is a bug."""


class _Selector(selectors.SelectSelector):
    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Asleep
        if not ready and timeout:
            self.loop.now += timeout
        self.loop.now += self.loop.busy
        return ready


class _TimersFirst(deque[asyncio.Handle]):
    """What is to be called next: what time has come for before all that was left from the last turn, as uvloop has it."""

    def append(self, handle: asyncio.Handle) -> None:
        if isinstance(handle, asyncio.TimerHandle):
            self.appendleft(handle)
        else:
            super().append(handle)


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells of each of its steps: it goes on where an `await` had suspended it."""

    def __init__(self, inner: Coroutine[Any, Any, Any], step: Callable[[], None]) -> None:
        self._inner = inner
        self._step = step

    def send(self, value: Any) -> Any:
        self._step()
        return self._inner.send(value)

    def throw(self, *args: Any) -> Any:
        self._step()
        return self._inner.throw(*args)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


class VirtualLoop(asyncio.SelectorEventLoop):
    """Deterministic: one thread, no clock but its own. `step` is called at each suspension point of each task.

    `busy` is what each turn takes in seconds; `timers_first`: not asyncio's order within a turn, but uvloop's.
    """

    def __init__(
        self, step: Callable[[], None] | None = None, *, busy: float = 0.0, timers_first: bool = False
    ) -> None:
        self.now = 0.0
        self.busy = busy
        self._count_steps(step)
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        if timers_first:
            self._ready = _TimersFirst()
        if self._factory:
            self.set_task_factory(self._factory)

    def _count_steps(self, step: Callable[[], None] | None) -> None:
        if step is None:
            self._factory = None
            return

        def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> Any:
            return asyncio.Task(Counted(coroutine, step), loop=loop, **more)

        self._factory = make

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:
            future.set_exception(error)
        return future
