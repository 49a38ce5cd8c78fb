"""A pool of symbolic children, shared by all threads of a process."""

from __future__ import annotations

import atexit
import os
import queue
import threading

from utils.grading.symbolic_client import SymbolicClient

DEFAULT_CHILDREN = 2


class SymbolicPool:
    """Lend each comparison an idle child; children start when first needed."""

    def __init__(self, children: int) -> None:
        self._resizing = threading.Lock()
        self._clients = [SymbolicClient() for _ in range(children)]
        self._idle: queue.LifoQueue[SymbolicClient] = queue.LifoQueue()
        self._lay_out()

    @property
    def children(self) -> int:
        """Return how many comparisons can run at once."""
        return len(self._clients)

    def worth_using(self, comparisons: int) -> int:
        """Return how many children to share some comparisons between: those there, or more.

        One takes about as long to start as a dozen comparisons take.
        """
        started = sum(client.has_child for client in self._clients)
        return max(1, min(self.children, comparisons, max(started, -(-comparisons // 12))))

    def equal(
        self, answer: str, reference: str, deadline_s: float, *, patient: bool = False
    ) -> tuple[bool, float]:
        """Compare in an idle child, waiting for one if need be; see `SymbolicClient.equal`."""
        client = self._idle.get()
        try:
            return client.equal(answer, reference, deadline_s, patient=patient)
        finally:
            self._idle.put(client)

    def resize(self, children: int) -> None:
        """Change the number of children, once the comparisons under way have ended.

        Raises:
            ValueError: for fewer than one.
        """
        if children < 1:
            raise ValueError(f"a grader needs at least one child process, not {children}")
        with self._resizing:
            held = [self._idle.get() for _ in self._clients]
            for client in held[children:]:
                client.close()
            self._clients = held[:children]
            self._clients += [SymbolicClient() for _ in range(children - len(self._clients))]
            self._lay_out()

    def close(self) -> None:
        """Kill every child; the next comparison starts a new one."""
        for client in self._clients:
            client.close()

    def forget_after_fork(self) -> None:
        """Leave the parent's children to the parent."""
        self._resizing = threading.Lock()
        self._idle = queue.LifoQueue()
        for client in self._clients:
            client.forget_after_fork()
        self._lay_out()

    def _lay_out(self) -> None:
        for client in reversed(self._clients):
            self._idle.put(client)


POOL = SymbolicPool(DEFAULT_CHILDREN)
os.register_at_fork(after_in_child=POOL.forget_after_fork)
atexit.register(POOL.close)
