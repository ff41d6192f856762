"""What `alphapulse --help` shows."""

from __future__ import annotations

from tests.programs import ended
from tests.support import ROOT


async def test_every_command_is_summed_up_whole_and_is_in_the_readme() -> None:
    status, out, _ = await ended("alphapulse.cli", "--help", COLUMNS="80")
    assert status == 0
    lines = [line.strip() for line in out.partition("Commands:")[2].strip().splitlines()]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert lines
    for line in lines:
        assert line.endswith("."), line
        assert not line.endswith(".."), line
        assert f"| `alphapulse {line.split()[0]}" in readme


async def test_what_takes_the_place_of_a_name_is_told_as_in_the_text() -> None:
    _, out, _ = await ended("alphapulse.cli", "export", "--help", COLUMNS="80")
    assert "export [OPTIONS] {FOLDER}" in out
    assert "--start YYYY-MM-DD" in out
