"""Recordings of raw venue frames: reading them, and playing them at a chosen pace."""

from __future__ import annotations

from alphapulse.capture.player import play_capture
from alphapulse.capture.reader import Frame, read_capture

__all__ = ["Frame", "play_capture", "read_capture"]
