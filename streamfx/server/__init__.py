"""streamfx as a server: WHIP and WHEP, the REST interface, metrics and the web page."""
