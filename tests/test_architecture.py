"""Rules of the house: who may import whom, that what is public is explained, and the version."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import alphapulse
from tests.support import ROOT

PACKAGE = ROOT / "alphapulse"

COMMON = {
    *("config", "metrics", "log", "symbols", "model", "fixed", "clock", "errors"),
    *("backoff", "process", "textwriter"),
}
SHARED = {"history", "repository"}
"""What store, api and client have to agree on without importing each other."""
ARBITRAGE = {"arbitrage"}
"""A pure engine, for all that have books."""
OPENING = {"opening"}
"""Chooses between client and store, and imports them when it is asked for."""
MIDDLE = {"delta", "shm"}
PARTS = {"api", "stream", "store", "client", "capture", "simulators", "collectors"}

MAY_IMPORT = {
    "": COMMON | SHARED | OPENING,
    "_core": COMMON,
    "delta": COMMON | {"_core"},
    "shm": COMMON | MIDDLE | {"_core"},
    "capture": COMMON | MIDDLE,
    "collectors": COMMON | MIDDLE | {"capture"},
    "simulators": COMMON | MIDDLE | {"capture"},
    "store": COMMON | SHARED | MIDDLE,
    "stream": COMMON | ARBITRAGE | MIDDLE,
    "api": COMMON | SHARED | ARBITRAGE | MIDDLE,
    "client": COMMON | SHARED | ARBITRAGE | MIDDLE,
    "cli": COMMON | SHARED | ARBITRAGE | MIDDLE | PARTS,
    "opening": COMMON | SHARED | {"client", "store"},
    **dict.fromkeys(COMMON | ARBITRAGE, COMMON),
    **dict.fromkeys(SHARED, COMMON | SHARED),
}
"""What a part of the package may import besides itself; ``""`` is ``alphapulse/__init__.py``."""

EXCEPTIONS = {("store/backfill.py", "collectors")}
"""Backfilling reads REST trades with the venue objects, which do no I/O."""

NETWORK_LIBRARIES = {
    *("aiohttp", "picows", "websockets", "httpx", "requests", "socket", "ssl", "http", "urllib"),
    *("asyncio", "uvloop", "selectors", "socketserver", "anyio", "starlette", "uvicorn", "redis"),
}

VENUE_FILES = re.compile(
    r"collectors/(venue|events|feed|sync|trades|coinbase|kraken|binance_us)\w*\.py"
)
"""Files that give meaning to frames; the session driver and the daemon do the I/O."""


class Import(NamedTuple):
    """One imported module, by its full name."""

    line: int
    module: str


def imports_of(path: Path, package: Path) -> Iterator[Import]:
    """Every import of a file, those inside functions and by name of a string included."""
    here = [package.name, *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(node.lineno, f"{module}.{alias.name}")
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield Import(node.lineno, argument.value)


def native_imports_of(path: Path) -> Iterator[Import]:
    """Imports of a Cython file, line by line."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        found = re.match(r"\s*(?:from|c?import)\s+([\w.]+)", line)
        if found:
            yield Import(number, found[1])


def part_of(parts: tuple[str, ...]) -> str:
    name = parts[0].removesuffix(".py").removesuffix(".pyx").removesuffix(".pxd")
    return {"__init__": "", "__main__": "cli"}.get(name, name)


def violations(package: Path) -> list[str]:
    """Broken rules, as ``file:line: rule``."""
    found = []
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyx"), *package.rglob("*.pxd")]):
        relative = path.relative_to(package)
        native = path.suffix != ".py"
        part = part_of(relative.parts)
        if part not in MAY_IMPORT:
            found.append(f"{relative}:1: {part} is no part of the design")
            continue
        for line, module in native_imports_of(path) if native else imports_of(path, package):
            rule = broken_rule(relative.as_posix(), part, module.split("."), package.name)
            if rule:
                found.append(f"{relative}:{line}: {rule}")
    return found


def broken_rule(file: str, part: str, module: list[str], package: str) -> str | None:
    """The rule that an import breaks, if any."""
    if module[0] in ("tests", "benchmarks", "tools"):
        return f"the package never imports {module[0]}"
    if module[0] != package:
        if module[0] in NETWORK_LIBRARIES and VENUE_FILES.fullmatch(file):
            return f"a venue file imports no networking library, {module[0]} is one"
        return None
    target = module[1] if len(module) > 1 else ""
    if target not in MAY_IMPORT or target == part or not target:
        return None  # a name of alphapulse/__init__.py, or the part's own
    if target in MAY_IMPORT[part] or (file, target) in EXCEPTIONS:
        return None
    return f"{part or 'alphapulse/__init__.py'} may not import {target}"


def test_imports_keep_their_direction() -> None:
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "text", "broken"),
    [
        (
            "stream/hub.py",
            "import alphapulse.store",
            "stream/hub.py:1: stream may not import store",
        ),
        ("stream/hub.py", "from alphapulse import api", "1: stream may not import api"),
        ("stream/hub.py", "\nfrom ..store import x", "2: stream may not import store"),
        ("stream/hub.py", "from .. import client", "1: stream may not import client"),
        ("stream/hub.py", "def f():\n import alphapulse.cli", "2: stream may not import cli"),
        ("store/a.py", "from alphapulse.collectors import kraken", "store may not import coll"),
        ("store/backfill.py", "from alphapulse.collectors import kraken", None),
        ("store/a.py", "from alphapulse._core import segment", "store may not import _core"),
        ("shm/a.py", "from alphapulse._core.segment import Segment", None),
        ("delta/a.py", "from alphapulse.shm import RingReader", "delta may not import shm"),
        ("_core/a.pyx", "from alphapulse.delta cimport x", "_core may not import delta"),
        ("_core/a.pyx", "from alphapulse._core.book cimport Book", None),
        (
            "simulators/a.py",
            "import alphapulse.collectors.kraken as k",
            "may not import collectors",
        ),
        ("collectors/a.py", "import alphapulse.stream", "collectors may not import stream"),
        ("collectors/kraken.py", "import aiohttp.client", "a venue file imports no networking"),
        ("collectors/coinbase_advanced.py", "from asyncio import Queue", "imports no networking"),
        ("collectors/session.py", "import picows, aiohttp", None),
        ("config/a.py", "from alphapulse.shm import x", "config may not import shm"),
        ("cli/a.py", "from alphapulse import api, collectors, shm, model", None),
        ("cli/a.py", "from alphapulse import _core", "cli may not import _core"),
        (
            "api/a.py",
            "import importlib\nimportlib.import_module('alphapulse.store')",
            "a.py:2: api",
        ),
        ("api/a.py", "from tests.support import ROOT", "the package never imports tests"),
        ("bus/a.py", "", "bus/a.py:1: bus is no part of the design"),
        ("arbitrage/a.py", "from alphapulse.shm import x", "arbitrage may not import shm"),
        ("arbitrage/a.py", "from alphapulse.config import x", None),
        ("collectors/a.py", "from alphapulse import arbitrage", "collectors may not import arb"),
        ("__init__.py", "from alphapulse.shm import x", "__init__.py may not import shm"),
        ("api/a.py", "from alphapulse import Trade, __version__", None),
    ],
)
def test_a_broken_rule_is_named_with_file_and_line(
    tmp_path: Path, file: str, text: str, broken: str | None
) -> None:
    path = tmp_path / "alphapulse" / file
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    found = violations(tmp_path / "alphapulse")
    if broken is None:
        assert found == []
    else:
        assert len(found) == 1
        assert broken in found[0]


def public_definitions(
    path: Path,
) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(
            node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and not node.name.startswith("_"):
            yield node


def test_every_module_and_public_name_has_a_docstring() -> None:
    lacking = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(ROOT)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body and not ast.get_docstring(tree):
            lacking.append(f"{relative}:1: the module")
        lacking += [
            f"{relative}:{node.lineno}: {node.name}"
            for node in public_definitions(path)
            if not ast.get_docstring(node)
        ]
    assert lacking == []


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name
)
def test_what_a_package_exports_exists_and_is_sorted_out(path: Path) -> None:
    name = ".".join(path.parent.relative_to(ROOT).parts)
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert len(exported) == len(set(exported))
    assert [item for item in exported if not hasattr(module, item)] == []


def test_every_directory_of_the_package_is_a_package() -> None:
    sources = {path.parent for pattern in ("*.py", "*.pyx") for path in PACKAGE.rglob(pattern)}
    assert [folder for folder in sorted(sources) if not (folder / "__init__.py").is_file()] == []


def test_every_native_module_is_typed() -> None:
    modules = sorted((PACKAGE / "_core").glob("*.pyx"))
    assert [path.name for path in modules if not path.with_suffix(".pyi").is_file()] == []
    assert (PACKAGE / "py.typed").is_file()


def test_the_changelog_begins_with_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\S+)", changelog, flags=re.MULTILINE)
    assert versions[0] == alphapulse.__version__
    assert len(versions) == len(set(versions))
