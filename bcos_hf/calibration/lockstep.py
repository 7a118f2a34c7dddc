"""Forward passes of several batches, in turns: at each meeting place all wait until the last batch is there.

So a layer can be changed by what all batches bring to it, and then all go on with the changed layer: one pass in the
place of one for each layer. A pass runs in a thread of its own, one at a time, in the order of the batches, so that the
result does not depend on chance.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch


class _Abandoned(Exception):
    """Raised in the passes that wait when one of them has failed, or when nothing is left to do."""


class Lockstep:
    """Runs passes that meet.

    Args:
        count: how many passes there are.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._items: list[tuple[str, Any] | None] = [None] * count
        self._results: list[Any] = [None] * count
        self._turn = 0
        self._stopped = False
        self._error: BaseException | None = None
        self._condition = threading.Condition()
        self._local = threading.local()

    @property
    def index(self) -> int:
        """Which pass the caller is, from 0."""
        return self._local.index

    def meet(self, place: str, item: Any, work: Callable[[list], Sequence]) -> Any:
        """Wait for all passes at `place`; `work`, called once with their items in order, returns what each pass gets
        back.

        Raises:
            RuntimeError: passes that come to different places: the model's way depends on its input.
        """
        mine = self.index
        self._items[mine] = (place, item)
        if mine == self.count - 1:
            places = {there for there, _ in self._items}
            if len(places) > 1:
                raise RuntimeError(
                    f"expected all batches to pass the layers in one order; they came to {sorted(places)} at once."
                )
            items = [brought for _, brought in self._items]
            self._items = [None] * self.count
            self._results = list(work(items))
        self._pass_on(mine)
        self._wait(mine)
        result, self._results[mine] = self._results[mine], None
        return result

    def stop(self) -> None:
        """Nothing is left to do: no pass goes on behind its next meeting place."""
        self._stopped = True

    def run(self, passes: Sequence[Callable[[], Any]]) -> None:
        """Run all passes to their end, or to `stop`. What one of them raises is raised here, after all others have
        ended."""
        threads = [
            threading.Thread(target=self._one, args=(index, call), daemon=True) for index, call in enumerate(passes)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:  # the user's interrupt comes to this thread
            self._stopped = True
            with self._condition:
                self._condition.notify_all()
            for thread in threads:
                thread.join()
            raise
        if self._error is not None:
            raise self._error

    def _one(self, index: int, call: Callable[[], Any]) -> None:
        self._local.index = index
        try:
            with torch.no_grad():
                self._wait(index)
                call()
        except _Abandoned:
            pass
        except BaseException as error:  # goes to the thread that called `run`
            self._error = self._error or error
            self._stopped = True
        finally:
            self._pass_on(index)

    def _pass_on(self, index: int) -> None:
        with self._condition:
            self._turn = (index + 1) % self.count
            self._condition.notify_all()

    def _wait(self, index: int) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._turn == index or self._stopped)
        if self._stopped:
            raise _Abandoned
