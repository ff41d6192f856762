"""All services of an installation as one tree of processes: what `up` and `demo` run."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from alphapulse.collectors.supervisor import venue_children
from alphapulse.config import Settings
from alphapulse.errors import AlphaPulseError
from alphapulse.process import Child, Supervised, supervise

START_SECONDS = 30.0
"""How long a service may take until it says that it is ready."""

POLL_SECONDS = 0.2
HEALTH_TIMEOUT_SECONDS = 5.0

Progress = Callable[[str], None]


class StackError(AlphaPulseError):
    """A service of the stack didn't start."""


class Stack:
    """The services of an installation while they run.

    Parameters
    ----------
    settings : all settings; ports that were 0 are replaced by those really taken
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def api_url(self) -> str:
        return _url("http", self.settings.api.host, self.settings.api.port)

    @property
    def stream_url(self) -> str:
        return _url("ws", self.settings.stream.host, self.settings.stream.port) + "/ws"

    async def health(self) -> dict[str, object]:
        """What `/health` says now.

        Raises
        ------
        aiohttp.ClientError, TimeoutError
            the API doesn't answer
        """
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_SECONDS)
        headers = {}
        if self.settings.api.token:
            headers["Authorization"] = f"Bearer {self.settings.api.token}"
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.get(f"{self.api_url}/health") as answer,
        ):
            body: dict[str, object] = await answer.json()
            return body

    async def healthy(self, stop: asyncio.Event, report: Progress) -> bool:
        """Wait until all is well, reporting what is still missing; False if told to stop."""
        told = ""
        while not stop.is_set():
            try:
                health = await self.health()
            except (aiohttp.ClientError, TimeoutError) as error:
                health = {"status": f"the API doesn't answer ({error})"}
            if health["status"] == "ok":
                return True
            missing = str(health.get("reasons") or health["status"])
            if missing != told:
                told = missing
                report(f"waiting: {missing}")
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await stop.wait()
            except TimeoutError:
                continue
        return False


@asynccontextmanager
async def run_stack(settings: Settings) -> AsyncIterator[Stack]:
    """Start collectors, stream and API, each under supervision; end them on leaving.

    The collectors end first, so that what they still had reaches clients and history.

    Raises
    ------
    StackError
        a service gave up at its start
    """
    stack = Stack(settings)
    running: list[tuple[asyncio.Task[int], asyncio.Event]] = []

    def start(settings: Settings, *children: Child) -> list[Supervised]:
        stop = asyncio.Event()
        supervised = [Supervised(child, settings, stop) for child in children]
        running.append((asyncio.create_task(supervise(supervised, stop)), stop))
        return supervised

    try:
        start(stack.settings, *venue_children(stack.settings))
        [stream] = start(stack.settings, Child("stream", "alphapulse.cli.serve", ("stream",)))
        stack.settings = _with_port(stack.settings, "stream", await _port_of(stream))
        # Started again, they listen where they did.
        stream.use(stack.settings)
        [api] = start(stack.settings, Child("api", "alphapulse.cli.serve", ("api",)))
        stack.settings = _with_port(stack.settings, "api", await _port_of(api))
        api.use(stack.settings)
        yield stack
    finally:
        for task, stop in running:
            stop.set()
            await asyncio.wait({task})


async def _port_of(service: Supervised) -> int:
    """The port that a service listens at, once it does."""
    try:
        async with asyncio.timeout(START_SECONDS):
            return int((await service.ready)["port"])
    except (TimeoutError, asyncio.CancelledError) as error:
        raise StackError(f"{service.child.name} didn't start") from error


def _with_port(settings: Settings, section: str, port: int) -> Settings:
    replaced = msgspec.structs.replace(getattr(settings, section), port=port)
    return msgspec.structs.replace(settings, **{section: replaced})


def _url(scheme: str, host: str, port: int) -> str:
    """Where this machine reaches a server that listens on the host."""
    everywhere = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}
    shown = everywhere.get(host, host).strip("[]")
    return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
