"""The listening socket, which bounds how many connections are in their handshake.

A connection that says nothing, or one letter a second, costs memory until its time is up. When
there are too many, the one that has been at it for longest goes: those in earnest are quick.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

BACKLOG = 1024

AT_ONCE = 32
"""Connections accepted before others of the event loop have their turn."""

_SHORT_OF_FILES = (errno.EMFILE, errno.ENFILE)


class Visitor(socket.socket):
    """A connection from its acceptance on.

    Parameters
    ----------
    accepted : the connection; its file descriptor becomes the visitor's
    gone : called when it is closed before `Door.admit`
    """

    def __init__(self, accepted: socket.socket, gone: Callable[[Visitor], None]) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self.gone: Callable[[Visitor], None] | None = gone

    def close(self) -> None:
        """Close the socket."""
        gone, self.gone = self.gone, None
        if gone is not None:
            gone(self)
        super().close()


class Door(socket.socket):
    """A listening socket.

    Parameters
    ----------
    listening : bound; its file descriptor becomes the door's
    most : connections that may be in their handshake at a time
    evicted : called for each that is ended because of too many, or for want of a file descriptor
    left : called for each that ends by itself without having been admitted
    """

    def __init__(
        self,
        listening: socket.socket,
        most: int,
        evicted: Callable[[], None],
        left: Callable[[], None],
    ) -> None:
        super().__init__(
            listening.family, listening.type, listening.proto, fileno=listening.detach()
        )
        self._most = most
        self._evicted = evicted
        self._left = left
        self._waiting: dict[int, Visitor] = {}
        self._burst = 0
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def waiting(self) -> int:
        """Connections in their handshake."""
        return len(self._waiting)

    def accept(self) -> tuple[Visitor, Any]:
        """Accept a connection.

        Raises
        ------
        BlockingIOError
            there is none, or enough were accepted for now
        """
        self._burst += 1
        if self._burst > AT_ONCE:
            self._burst = 0
            raise BlockingIOError(errno.EAGAIN, "enough for now")
        try:
            accepted, address = super().accept()
        except BlockingIOError:
            self._burst = 0
            raise
        except OSError as error:
            if error.errno not in _SHORT_OF_FILES:
                raise
            self._turn_away()
            raise BlockingIOError(errno.EAGAIN, "short of file descriptors") from None
        visitor = Visitor(accepted, self._gone)
        self._waiting[visitor.fileno()] = visitor
        if len(self._waiting) > self._most:
            self._end(next(iter(self._waiting.values())))
        return visitor, address

    def admit(self, fd: int) -> None:
        """A connection's handshake is done."""
        visitor = self._waiting.pop(fd, None)
        if visitor is not None:
            visitor.gone = None

    def close(self) -> None:
        """Listen no more."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        super().close()

    def _gone(self, visitor: Visitor) -> None:
        self._waiting.pop(visitor.fileno(), None)
        self._left()

    def _end(self, visitor: Visitor) -> None:
        """Have a connection end; whoever reads from it sees the end and closes it."""
        del self._waiting[visitor.fileno()]
        visitor.gone = None
        with suppress(OSError):
            visitor.shutdown(socket.SHUT_RDWR)
        self._evicted()

    def _turn_away(self) -> None:
        """Accept and close one connection: left alone, it would be reported without end."""
        os.close(self._spare)
        with suppress(OSError):
            super().accept()[0].close()
            self._evicted()
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def listen(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    """Sockets bound to all addresses of a host, at one port; not listening yet.

    Parameters
    ----------
    port : 0 for any free one
    shared : let other processes of this user listen on it too

    Raises
    ------
    OSError
        an address can't be had
    """
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address[0], port, *address[2:]))
            port = one.getsockname()[1]
    except BaseException:
        for one in bound:
            one.close()
        raise
    return bound
