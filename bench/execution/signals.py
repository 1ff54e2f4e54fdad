"""Stopping on a signal: the first Ctrl-C or SIGTERM asks the work to stop, the second ends it."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, no_type_check

IMPORT = "<frozen importlib._bootstrap>"
"""File of the code of Python's import."""


@contextmanager
def _handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM while the context is open; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def interrupts(leave: Callable[[], NoReturn]) -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, while the context is open.

    Args:
        leave: Ends the process at once. It is called instead of raising ``KeyboardInterrupt`` while
            a module is imported: the exception would leave modules half made, and libraries catch
            it and fail with an error of their own. An import has nothing to lose.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if importing(frame):
            leave()
        raise KeyboardInterrupt

    with _handled(handle):
        yield


def importing(frame: FrameType | None) -> bool:
    """Whether a frame, or one that called it, imports a module."""
    while frame is not None:
        if frame.f_code.co_filename == IMPORT:
            return True
        frame = frame.f_back
    return False


@contextmanager
def deferred() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM until the context is left, for a step that must not be cut."""
    held: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        held.append(number)

    try:
        with _handled(handle):
            yield
    finally:
        if held:
            signal.raise_signal(held[0])


@contextmanager
def kept() -> Iterator[None]:
    """Keep the handlers of both signals while the context is open, whatever a library does.

    A library may install handlers of its own natively, which Python does not see, and wait
    natively with them in force. A thread puts back the native handlers every two milliseconds. It
    is compiled, since such a library may keep Python's lock all the while.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in numbers}
    library = ctypes.CDLL(None)
    # larger than the structure of any system; only the system looks into it
    native = [ctypes.create_string_buffer(1024) for _ in numbers]
    for number, action in zip(numbers, native, strict=True):
        library.sigaction(number, None, action)
    # whether to end, and where the actions are
    state = (ctypes.c_int64 * 3)(0, *map(ctypes.addressof, native))
    routine, thread = _put_back(), ctypes.c_void_p()
    library.pthread_create(
        ctypes.byref(thread), None, ctypes.c_void_p(routine.address), ctypes.byref(state)
    )
    try:
        yield
    finally:
        state[0] = 1
        library.pthread_join(thread, None)
        if threading.current_thread() is threading.main_thread():
            for number, handler in previous.items():
                signal.signal(number, handler)


def _put_back() -> Any:
    """A compiled function that installs two native handlers again and again, until told to end."""
    from numba import cfunc, types

    library = ctypes.CDLL(None)
    sigaction, usleep = library.sigaction, library.usleep
    sigaction.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    sigaction.restype = usleep.restype = ctypes.c_int
    usleep.argtypes = [ctypes.c_uint]
    interrupt, terminate = int(signal.SIGINT), int(signal.SIGTERM)

    @no_type_check  # the compiler checks
    def routine(state: Any) -> int:
        while state[0] == 0:
            sigaction(interrupt, state[1], 0)
            sigaction(terminate, state[2], 0)
            usleep(2000)
        return 0

    return cfunc(types.intp(types.CPointer(types.int64)))(routine)


@contextmanager
def listen(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Handle Ctrl-C and SIGTERM while the context is open.

    Args:
        say: Prints the message for the first signal.

    Yields:
        A function that returns whether to stop. The second signal raises ``KeyboardInterrupt``.
    """
    stop_requested = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stop_requested
        if stop_requested:
            raise KeyboardInterrupt
        stop_requested = True
        say("Stopping after the current step; press Ctrl-C again to stop at once.")

    with _handled(handle):
        yield lambda: stop_requested
