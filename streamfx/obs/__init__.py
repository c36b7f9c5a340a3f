"""OBS, told by obs-websocket to show a session of a streamfx server, and to publish to it."""
