"""The numbers that a face is posed by, one row a picture at 25 fps. ARKit's blend shapes gave the names that fit."""

from __future__ import annotations

FPS = 25
"""Rows a second."""

MOUTH = ("jaw_open", "lips_wide", "lips_round", "lips_press", "lip_tuck", "tongue_up", "teeth")
"""What speech decides, each from 0 (at rest) to 1. ``jaw_open``: 1 is a wide open ``a``; ``lips_wide``: corners drawn
apart, as in ``ee``; ``lips_round``: pursed, as in ``oo``; ``lips_press``: lips shut on each other, as in ``m``,
whatever the jaw does; ``lip_tuck``: the lower lip under the upper teeth, as in ``f``; ``tongue_up``: the tongue's tip
is seen behind the upper teeth, as in ``l`` and ``th``; ``teeth``: the rows of teeth are together and show, as in
``s``."""

FACE = ("smile", "brow_up", "blink_left", "blink_right", "gaze_x", "gaze_y", "yaw", "pitch", "roll", "breath")
"""What is not read from the sound's phonemes. ``smile``, ``brow_up`` in [-1, 1] (frown to smile, lowered to raised);
``blink_left``, ``blink_right`` from 0 (open) to 1 (shut); ``gaze_x``, ``gaze_y`` in [-1, 1], to the right and down as
the watcher sees it; ``yaw``, ``pitch``, ``roll`` in [-1, 1], of the head: to the right, down, clockwise as the watcher
sees it, 1 being some 25 degrees; ``breath`` in [-1, 1]: out and in."""

COEFFICIENTS = MOUTH + FACE
"""All 17, in the order in which arrays ``(N, 17) float32`` have them."""
