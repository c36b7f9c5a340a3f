"""A talking avatar that is driven by sound: a drawn character says what is heard (docs/avatar.md)."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streamfx.core.errors import UsageError
from streamfx.core.frames import AUDIO_RATE
from streamfx.filters import Block, Context, Filter, FilterInfo, Params, at_setup
from streamfx_plugins.pictures import read_picture
from streamfx_plugins.rest import RestLoop

if TYPE_CHECKING:
    from streamfx.models.avatar.drawing import Painter
    from streamfx.models.avatar.listener import Manner
    from streamfx.models.avatar.photo import Photo, PhotoPainter
    from streamfx.models.avatar.portrait import PortraitPainter
    from streamfx.models.avatar.renderer import Renderer

_LOOKAHEAD = 0.2
"""Seconds: what the network hears ahead, and a picture's own length."""

_CONTEXT = 1.0
"""Seconds of sound before a picture that are worth hearing."""

_PATIENCE = 0.6
"""Seconds by which sound may be behind the picture before its moments are drawn without it."""

_SIDES = (512, 320, 224)
"""Pixels: the side of the drawing at each quality level."""

_NETWORK_SIDES = (256, 192, 128)
"""The same where the network draws."""

_REST = 100
"""Pictures of a face at rest that are kept: four seconds, played to and fro."""

_STILL = 0.8
"""Seconds without a word after which a face is at rest."""

_SETTLED, _EVERY = 25, 5
"""Pictures, all of them with others waiting behind, after which each fifth is left out to catch up."""


class AvatarParams(Params):
    """Who speaks, and how."""

    character: int = Field(
        7,
        ge=0,
        le=2**31 - 1,
        title="Character",
        description="each number is somebody else",
        json_schema_extra={"x-widget": "seed"},
    )
    motion: float = Field(1.0, ge=0, le=2, title="Liveliness", description="how much the head moves")
    mouth: float = Field(1.0, ge=0.3, le=1.6, title="Mouth", description="how far the mouth opens")
    economy: bool = Field(
        False, title="Rest from cache", description="a face at rest is played from pictures that were drawn once"
    )
    smile: float = Field(0.15, ge=-1, le=1, title="Mood", description="from a frown to a smile")

    network: bool = at_setup(
        False, "the character is drawn by the diffusion network, from one picture of it, instead of by its recipe"
    )
    portrait: str = at_setup(
        "", "a picture of such a character, which the network lets talk; a photograph is for `photo`, not for this"
    )
    photo: str = at_setup(
        "",
        "a portrait that talks instead of the character: its pixels are warped, no model of the person; empty for the "
        "character",
    )


class Avatar(Filter[AvatarParams]):
    """The filter ``avatar``."""

    name = "avatar"
    info = FilterInfo(
        summary="A talking character, driven by sound alone: the camera, if there is one, is not shown.",
        takes="audio",
        lookahead=_LOOKAHEAD,
        quality_levels=len(_SIDES),
        min_scale=1.0,
        needs=("torch", "safetensors", "silero_vad", "onnxruntime"),
        install="pip install 'streamfx[avatar]'",
    )

    def setup(self, context: Context, params: AvatarParams) -> None:
        import torch

        from streamfx.models.avatar.listener import Listener, silero
        from streamfx.models.avatar.load import speech
        from streamfx.models.avatar.speech import SpeechStream

        self._photo: Photo | None = None
        self._portrait = read_picture(params.portrait, "portrait") if params.portrait else None
        self._networks: Renderer | None = None
        if params.photo and (params.portrait or params.network):
            raise UsageError("photo is a warp, and the network draws portraits: set one of them, not both")
        if params.network or params.portrait:
            from streamfx.models.avatar.renderer_load import renderer
            from streamfx.models.devices import multiplies_half

            self._networks = renderer(dtype=torch.bfloat16 if multiplies_half("cpu") else torch.float32)
        self._sides = _NETWORK_SIDES if self._networks else _SIDES
        if params.photo:
            from streamfx.models.avatar.photo import Photo

            self._photo = Photo.of(read_picture(params.photo, "photo"))
        torch.set_num_threads(context.threads)
        self._live = context.live
        self._listener = Listener(SpeechStream(speech()), silero(), params.character)
        self._waiting: deque[float] = deque()
        self._newest = 0.0
        self._behind = 0
        self._painters: dict[tuple[int, int], Painter | PhotoPainter | PortraitPainter] = {}
        self._rest = RestLoop(_REST)
        self._resting: tuple[Any, ...] = ()
        self._drawn(np.zeros(17, np.float32), params.character, context.size, 0)

    def process(self, block: Block, params: AvatarParams) -> Block:
        from streamfx.models.avatar.listener import Manner

        if block.audio is not None:
            # What was said long before the first picture, while this was set up, is not made up for.
            old = max(0, round((block.pts[0] - _CONTEXT - block.audio_pts) * AUDIO_RATE))
            self._listener.hear(block.audio[:, old:], block.audio_pts + old / AUDIO_RATE)
        self._waiting.extend(block.pts)
        self._newest = max(self._newest, *block.pts)
        moments = self._due(len(block.pts))
        if not moments:
            return Block()
        size = block.frames.shape[2], block.frames.shape[1]
        manner = Manner(params.motion, params.mouth, params.smile)
        pictures = [self._picture(moment, manner, params, size, block.quality) for moment in moments]
        return block.with_video(np.stack(pictures), tuple(moments))

    def reset(self) -> None:
        self._listener.restart()
        self._rest.clear()
        self._waiting.clear()
        self._newest = 0.0
        self._behind = 0

    def _due(self, most: int) -> list[float]:
        """The moments that are to be drawn now: those that were heard, in order."""
        known = max(self._listener.known, self._newest - _PATIENCE)
        ready = sum(moment <= known for moment in self._waiting)
        self._behind = self._behind + 1 if ready > most else 0
        if self._live and self._behind > _SETTLED and self._behind % _EVERY == 0:
            # Sound that was late once does not make the picture late for ever.
            self._waiting.popleft()
            ready -= 1
        return [self._waiting.popleft() for _ in islice(range(ready), most)]

    def _picture(
        self, moment: float, manner: Manner, params: AvatarParams, size: tuple[int, int], level: int
    ) -> NDArray[np.uint8]:
        pose = self._listener.pose(moment, manner)

        def draw(pose: NDArray[np.float32]) -> NDArray[np.uint8]:
            return self._drawn(pose, params.character, size, level)

        resting = params.character, manner, size, level
        if resting != self._resting:
            self._resting = resting
            self._rest.clear()
        return self._rest.picture(pose, params.economy and self._listener.quiet_since > _STILL, draw)

    def _drawn(
        self, coefficients: NDArray[np.float32], character: int, size: tuple[int, int], level: int
    ) -> NDArray[np.uint8]:
        side = min(self._sides[min(level, len(self._sides) - 1)], max(64, min(size)))
        drawn = self._painter(character, side).draw(coefficients)
        return fitted(drawn, size)

    def _painter(self, character: int, side: int) -> Painter | PhotoPainter | PortraitPainter:
        key = character, side
        if key not in self._painters:
            if len(self._painters) > len(_SIDES):
                self._painters.clear()
            self._painters[key] = self._new_painter(character, side)
        return self._painters[key]

    def _new_painter(self, character: int, side: int) -> Painter | PhotoPainter | PortraitPainter:
        from streamfx.models.avatar.character import Character
        from streamfx.models.avatar.drawing import Painter

        if self._photo is not None:
            from streamfx.models.avatar.photo import PhotoPainter

            return PhotoPainter(self._photo, side)
        if self._networks is None:
            return Painter(Character.of(character), side)
        from streamfx.models.avatar.portrait import SIDE, PortraitPainter

        portrait = self._portrait
        if portrait is None:
            portrait = Painter(Character.of(character), SIDE).draw(np.zeros(17, np.float32))
        return PortraitPainter(self._networks, portrait, side)


def fitted(drawn: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A square picture in one of ``size`` (width, height): whole, with its edges going on to the sides."""
    width, height = size
    side = min(size)
    whole = drawn if drawn.shape[0] == side else cv2.resize(drawn, (side, side), interpolation=cv2.INTER_CUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    if width > height:
        # Softened along the edge, or what is patterned there would be drawn out to stripes.
        edges = [cv2.blur(np.ascontiguousarray(whole[:, [n]]), (1, side // 6 + 1)) for n in (0, -1)]
        counts = left, width - side - left
        before, after = (np.repeat(edge.reshape(side, 1, 3), n, axis=1) for edge, n in zip(edges, counts, strict=True))
        return np.asarray(np.hstack([before, whole, after]), np.uint8)
    return np.asarray(cv2.copyMakeBorder(whole, top, height - side - top, 0, 0, cv2.BORDER_REPLICATE), np.uint8)
