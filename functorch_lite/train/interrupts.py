# SPDX-License-Identifier: MIT
"""Ctrl-C and SIGTERM wait for the step under way, so that what is saved is a whole number of steps."""

import os
import signal
import threading
from typing import Any

_WATCHED = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Within this block the first Ctrl-C or SIGTERM is only noted in `pending`; the second Ctrl-C acts at once.

    `deliver()` then does what the signal would have done. Signals that the program handles by itself are left to it,
    and outside the main thread nothing is changed.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
            for number in _WATCHED:
                if signal.getsignal(number) is usual[number]:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: Any) -> None:
        del frame
        if self.pending is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.pending = number

    def deliver(self) -> None:
        """Do what the noted signal does without this block: raise KeyboardInterrupt, or end the process."""
        number, self.pending = self.pending, None
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if number is not None:
            signal.signal(number, self._before.pop(number, signal.SIG_DFL))
            os.kill(os.getpid(), number)
