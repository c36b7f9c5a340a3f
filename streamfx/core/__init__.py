"""Ground floor: what a frame is, what time is, and the decisions made with them. No I/O in here."""
