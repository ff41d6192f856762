"""Sharing this process's metrics, and showing those of all processes."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from alphapulse.metrics.declared import ALL, REGISTRY, Declared
from alphapulse.metrics.shared import DIRECTORY_VARIABLE, SharedDirectory, runtime_directory

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_shared: SharedDirectory | None = None


def setup(prefix: str) -> Path:
    """Share this process's metrics with the installation's other processes from here on.

    Parameters
    ----------
    prefix : ``ring.prefix`` of the settings; installations with different ones don't meet

    Returns
    -------
    Path
        the directory shared, removed by the last process to end

    Raises
    ------
    RuntimeError
        something was bound before, and would not be shared
    ConfigError
        the directory can't be used
    """
    global _shared
    path = runtime_directory(prefix)
    if _shared is not None and _shared.path == path:
        return path
    if _shared is not None or any(declared.is_bound for declared in ALL):
        raise RuntimeError("metrics.setup has to come before the first metric is bound")
    shared = SharedDirectory(path)
    shared.join()
    os.environ[DIRECTORY_VARIABLE] = str(path)
    values.ValueClass = values.MultiProcessValue(shared.identity)
    _shared = shared
    atexit.register(shared.leave)
    return path


def render() -> tuple[str, bytes]:
    """Content type and body for Prometheus, of all processes if `setup` was called."""
    return CONTENT_TYPE, generate_latest(_snapshot())


def sample(name: str, **labels: str) -> float | None:
    """One value as `render` shows it, None where nothing was counted (yet)."""
    return _snapshot().get_sample_value(name, labels)


def samples(metric: Declared) -> list[Sample]:
    """Everything counted of one metric, of all processes if `setup` was called."""
    name = metric.empty_family().name
    return [each for family in _families() if family.name == name for each in family.samples]


def _snapshot() -> CollectorRegistry:
    registry = CollectorRegistry(support_collectors_without_names=True)
    registry.register(_Families(list(_families())))
    return registry


def _families() -> Iterator[Metric]:
    """All declared metrics, those that nobody has counted included."""
    if _shared is None:
        counted = list(REGISTRY.collect())
    else:
        with _shared.guarded():
            _shared.fold()
            counted = list(MultiProcessCollector.merge(_shared.files(), accumulate=True))
    found = {metric.name: metric for metric in counted}
    for declared in ALL:
        empty = declared.empty_family()
        yield found.get(empty.name, empty)


class _Families(Collector):
    """Gives what was collected before, so that the guard isn't held while text is made."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)
