"""The ring's peers, as their users would use them; those that may be absent are imported late."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import shutil
import socket
import subprocess
import tempfile
import time
from array import array
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import redis.asyncio
import uvloop

from alphapulse.clock import monotonic_ns
from benchmarks.harness import INSTALL_PEERS, version_of
from benchmarks.ring_links import (
    JOINED,
    MESSAGE_BYTES,
    RECORD,
    STAMP,
    STAMP_AT,
    Link,
    Receiver,
    Sender,
)

_PATIENCE_SECONDS = 30.0
_MANY = RECORD * JOINED


def missing(kind: type[Link]) -> str:
    """Why a peer can't take part here, empty if it can."""
    if kind is RedisLink and shutil.which("redis-server") is None:
        return "no redis-server on the path"
    if kind.distribution and version_of(kind.distribution) is None:
        return f"not installed: {INSTALL_PEERS}"
    return ""


class QueueLink(Link):
    """`multiprocessing.Queue`, one a reader; joined: lists of messages."""

    name = "multiprocessing.Queue"
    distribution = ""
    modes = frozenset({"one", "joined", "sleep"})

    def open(self, stack: ExitStack) -> None:
        context = multiprocessing.get_context("spawn")
        self.queues = [context.Queue() for _ in range(self.readers)]

    def sender(self) -> Sender:
        return _QueueSender(self)

    def receiver(self, index: int) -> Receiver:
        return _QueueReceiver(self, index)


class _QueueSender(Sender):
    def __init__(self, link: QueueLink) -> None:
        self._queues = link.queues
        self._joined = link.mode == "joined"

    def burst(self, count: int) -> None:
        puts = [queue.put for queue in self._queues]
        # Distinct objects: pickle writes one object that comes several times only once.
        many = [bytes(bytearray(RECORD)) for _ in range(JOINED)]
        message: Any = many if self._joined else RECORD
        for _ in range(count // JOINED if self._joined else count):
            for put in puts:
                put(message)

    def send(self, message: bytearray) -> None:
        data = bytes(message)
        for queue in self._queues:
            queue.put(data)


class _QueueReceiver(Receiver):
    def __init__(self, link: QueueLink, index: int) -> None:
        self._get = link.queues[index].get
        self._joined = link.mode == "joined"

    def drain(self, count: int) -> None:
        get = self._get
        for _ in range(count // JOINED if self._joined else count):
            get()

    def times(self, count: int) -> array[int]:
        get, unpack = self._get, STAMP.unpack_from
        times = array("q")
        for _ in range(count):
            message = get()
            times.append(monotonic_ns() - unpack(message, STAMP_AT)[0])
        return times


class ZmqLink(Link):
    """Pyzmq over ipc, one PUSH socket a reader; joined: messages of 100 messages."""

    name = "pyzmq ipc"
    distribution = "pyzmq"
    modes = frozenset({"one", "joined", "sleep", "asyncio"})

    def open(self, stack: ExitStack) -> None:
        self.folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=self.prefix))

    def address(self, index: int) -> str:
        """Where a reader's socket is."""
        return f"ipc://{self.folder}/{index}"

    def sender(self) -> Sender:
        return _ZmqSender(self)

    def receiver(self, index: int) -> Receiver:
        return _ZmqReceiver(self, index)


class _ZmqSender(Sender):
    def __init__(self, link: ZmqLink) -> None:
        zmq: Any = import_module("zmq")

        self._joined = link.mode == "joined"
        self._context = zmq.Context()
        self._sockets = [self._context.socket(zmq.PUSH) for _ in range(link.readers)]
        for index, each in enumerate(self._sockets):
            each.linger = 0
            each.bind(link.address(index))

    def __exit__(self, *error: object) -> None:
        self._context.destroy(linger=0)

    def burst(self, count: int) -> None:
        sends = [each.send for each in self._sockets]
        message = _MANY if self._joined else RECORD
        for _ in range(count // JOINED if self._joined else count):
            for send in sends:
                send(message)

    def send(self, message: bytearray) -> None:
        for each in self._sockets:
            each.send(message)


class _ZmqReceiver(Receiver):
    def __init__(self, link: ZmqLink, index: int) -> None:
        zmq: Any = import_module("zmq")

        self._joined = link.mode == "joined"
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.connect(link.address(index))
        self._asyncio = link.mode == "asyncio"

    def __exit__(self, *error: object) -> None:
        self._context.destroy(linger=0)

    def drain(self, count: int) -> None:
        recv = self._socket.recv
        for _ in range(count // JOINED if self._joined else count):
            recv()

    def times(self, count: int) -> array[int]:
        if self._asyncio:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(self._awaited(count))
        recv, unpack = self._socket.recv, STAMP.unpack_from
        times = array("q")
        for _ in range(count):
            message = recv()
            times.append(monotonic_ns() - unpack(message, STAMP_AT)[0])
        return times

    async def _awaited(self, count: int) -> array[int]:
        zmq_asyncio: Any = import_module("zmq.asyncio")

        shadow = zmq_asyncio.Socket(shadow=self._socket)
        times = array("q")
        for _ in range(count):
            message = await shadow.recv()
            times.append(monotonic_ns() - STAMP.unpack_from(message, STAMP_AT)[0])
        return times


class IceoryxLink(Link):
    """iceoryx2's publish and subscribe, nothing overwritten; joined: slices of 100 messages."""

    name = "iceoryx2"
    distribution = "iceoryx2"
    modes = frozenset({"one", "joined", "spin"})

    def open(self, stack: ExitStack) -> None:
        self.folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=self.prefix))

    def service(self) -> Any:
        """The service, and the node that keeps it."""
        iox: Any = import_module("iceoryx2")

        iox.set_log_level(iox.LogLevel.Fatal)
        config = iox.config.default()
        config.global_cfg.prefix = iox.FileName.new(self.prefix)
        config.global_cfg.root_path = iox.Path.new(self.folder)
        node = (
            iox.NodeBuilder.new()
            .config(config)
            .signal_handling_mode(iox.SignalHandlingMode.Disabled)
            .create(iox.ServiceType.Ipc)
        )
        service = (
            node.service_builder(iox.ServiceName.new("ring"))
            .publish_subscribe(iox.Slice[ctypes.c_uint8])
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(1024)
            .max_subscribers(self.readers)
            .max_publishers(1)
            .open_or_create()
        )
        return node, service

    def sender(self) -> Sender:
        return _IceoryxSender(self)

    def receiver(self, index: int) -> Receiver:
        return _IceoryxReceiver(self)


class _IceoryxSender(Sender):
    def __init__(self, link: IceoryxLink) -> None:
        iox: Any = import_module("iceoryx2")

        self._joined = link.mode == "joined"
        self._node, self._service = link.service()
        self._publisher = (
            self._service.publisher_builder()
            .initial_max_slice_len(len(_MANY) if self._joined else MESSAGE_BYTES)
            .backpressure_strategy(iox.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )

    def __exit__(self, *error: object) -> None:
        self._publisher.delete()
        del self._publisher, self._service, self._node

    def burst(self, count: int) -> None:
        loan, move = self._publisher.loan_slice_uninit, ctypes.memmove
        message = _MANY if self._joined else RECORD
        size = len(message)
        for _ in range(count // JOINED if self._joined else count):
            sample = loan(size)
            move(sample.payload_ptr, message, size)
            sample.assume_init().send()

    def send(self, message: bytearray) -> None:
        sample = self._publisher.loan_slice_uninit(MESSAGE_BYTES)
        ctypes.memmove(sample.payload_ptr, bytes(message), MESSAGE_BYTES)
        sample.assume_init().send()


class _IceoryxReceiver(Receiver):
    def __init__(self, link: IceoryxLink) -> None:
        self._joined = link.mode == "joined"
        self._node, self._service = link.service()
        self._subscriber = self._service.subscriber_builder().buffer_size(1024).create()

    def __exit__(self, *error: object) -> None:
        self._subscriber.delete()
        del self._subscriber, self._service, self._node

    def drain(self, count: int) -> None:
        receive, copy = self._subscriber.receive, ctypes.string_at
        size = len(_MANY) if self._joined else MESSAGE_BYTES
        left = count // JOINED if self._joined else count
        while left:
            sample = receive()
            if sample is not None:
                copy(sample.payload_ptr, size)
                left -= 1

    def times(self, count: int) -> array[int]:
        receive, stamp_at = self._subscriber.receive, ctypes.c_int64.from_address
        times = array("q")
        while len(times) < count:
            sample = receive()
            if sample is not None:
                stamp = stamp_at(sample.payload_ptr + STAMP_AT).value
                times.append(monotonic_ns() - stamp)
        return times


class RedisLink(Link):
    """Streams of a Redis server of its own; joined: pipelines of 100 messages."""

    name = "Redis Streams"
    distribution = "redis"
    modes = frozenset({"one", "joined", "sleep", "asyncio"})

    def open(self, stack: ExitStack) -> None:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=self.prefix))
        self.path = str(Path(folder) / "redis.sock")
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.path, "--save", "",
             "--appendonly", "no", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(server.wait)
        stack.callback(server.terminate)
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(self.path) == 0:
                    return
            if time.monotonic() > until or server.poll() is not None:
                raise RuntimeError("redis-server doesn't start")
            time.sleep(0.01)

    def sender(self) -> Sender:
        return _RedisSender(self)

    def receiver(self, index: int) -> Receiver:
        return _RedisReceiver(self)


class _RedisSender(Sender):
    def __init__(self, link: RedisLink) -> None:
        self._joined = link.mode == "joined"
        self._client = redis.Redis(unix_socket_path=link.path)

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def burst(self, count: int) -> None:
        if not self._joined:
            for _ in range(count):
                self._client.xadd("ring", {"m": RECORD})
            return
        for _ in range(count // JOINED):
            pipeline = self._client.pipeline(transaction=False)
            for _ in range(JOINED):
                pipeline.xadd("ring", {"m": RECORD})
            pipeline.execute()

    def send(self, message: bytearray) -> None:
        self._client.xadd("ring", {"m": bytes(message)})


class _RedisReceiver(Receiver):
    def __init__(self, link: RedisLink) -> None:
        self._path = link.path
        self._asyncio = link.mode == "asyncio"
        self._client = redis.Redis(unix_socket_path=link.path)
        self._last: Any = "0"

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def _take(self, answer: Any) -> list[bytes]:
        if not answer:
            raise RuntimeError("nothing came")
        entries = answer[0][1]
        self._last = entries[-1][0]
        return [fields[b"m"] for _, fields in entries]

    def drain(self, count: int) -> None:
        while count > 0:
            answer = self._client.xread({"ring": self._last}, count=1000, block=30_000)
            count -= len(self._take(answer))

    def times(self, count: int) -> array[int]:
        if self._asyncio:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(self._awaited(count))
        times = array("q")
        while len(times) < count:
            answer = self._client.xread({"ring": self._last}, count=1000, block=30_000)
            for message in self._take(answer):
                times.append(monotonic_ns() - STAMP.unpack_from(message, STAMP_AT)[0])
        return times

    async def _awaited(self, count: int) -> array[int]:
        times = array("q")
        async with redis.asyncio.Redis(unix_socket_path=self._path) as client:
            while len(times) < count:
                answer = await client.xread({"ring": self._last}, count=1000, block=30_000)
                for message in self._take(answer):
                    times.append(monotonic_ns() - STAMP.unpack_from(message, STAMP_AT)[0])
        return times
