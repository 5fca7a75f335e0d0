"""Waiting for conditions, never for time."""

import time

SECONDS_MAX = 45
PAUSE_SECONDS = 0.1


class NeverHappened(AssertionError):
    pass


def eventually(condition, what, seconds_max=SECONDS_MAX):
    """What `condition` returns, as soon as that is true."""
    deadline = time.monotonic() + seconds_max
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise NeverHappened(f"never happened: {what}")
        time.sleep(PAUSE_SECONDS)
