"""Timers of the kernel."""

def open_alarm() -> int:
    """File descriptor of a new timer, closed on exec; it can be read once the time is up."""

def set_alarm(fd: int, nanoseconds: int) -> None:
    """Have a timer go off once, so much later. Raises ``ValueError`` for what is no time."""
