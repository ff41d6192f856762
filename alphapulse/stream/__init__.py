"""The WebSocket fan-out server and the JSON events that it sends."""
