"""A load client for HTTP servers that keep connections open, with little work for a request."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_HEADERS_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_RECEIVE_BYTES = 1 << 18
_TIMEOUT_SECONDS = 60.0


class Connection:
    """One connection to a server on this machine, for one request at a time.

    Parameters
    ----------
    port : where it listens
    """

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = bytearray()

    def ask(self, path: str) -> None:
        """Send a GET request."""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    def take(self) -> bytes | None:
        """Receive what is there; the answer's body once it is whole.

        Raises
        ------
        RuntimeError
            the server has closed the connection, or its answer is not 200
        """
        received = self.socket.recv(_RECEIVE_BYTES)
        if not received:
            raise RuntimeError("the server has closed the connection")
        self._data += received
        data = self._data
        end = data.find(_HEADERS_END)
        if end < 0:
            return None
        begin = end + len(_HEADERS_END)
        head = bytes(data[:end]).lower()
        at = head.index(_LENGTH) + len(_LENGTH)
        length = int(head[at:].split(b"\r\n", 1)[0])
        if len(data) < begin + length:
            return None
        body = bytes(data[begin : begin + length])
        data.clear()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"{head.splitlines()[0].decode()}: {body[:500].decode()}")
        return body

    def get(self, path: str) -> bytes:
        """The body that a path answers with; see `take`."""
        self.ask(path)
        while (body := self.take()) is None:
            pass
        return body

    def close(self) -> None:
        """Close it."""
        self.socket.close()


class Load(NamedTuple):
    """What came of a load."""

    requests: int
    seconds: float
    client_cpu_seconds: float


def run(port: int, paths: Sequence[str], seconds: float, connections: int) -> Load:
    """Send one request after the other on each of some connections.

    Parameters
    ----------
    port : of the server
    paths : asked for in turns
    seconds : for how long
    connections : how many
    """
    opened = [Connection(port) for _ in range(connections)]
    try:
        by_file = {one.socket.fileno(): one for one in opened}
        poll = select.epoll()
        for file in by_file:
            poll.register(file, select.EPOLLIN)
        turns = _turns(paths)
        begun, cpu = time.monotonic(), time.process_time()
        for one in opened:
            one.ask(next(turns))
        requests = 0
        while (now := time.monotonic()) - begun < seconds:
            for file, _ in poll.poll(_TIMEOUT_SECONDS):
                if by_file[file].take() is not None:
                    requests += 1
                    by_file[file].ask(next(turns))
        poll.close()
        return Load(requests, now - begun, time.process_time() - cpu)
    finally:
        for one in opened:
            one.close()


def _turns(paths: Sequence[str]) -> Iterator[str]:
    while True:
        yield from paths
