"""A person from a picture who says what is heard: Live Avatar, Wan2.2-S2V, SoulX-FlashHead (docs/avatar.md)."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streamfx.core.errors import UsageError
from streamfx.filters import Block, Context, Filter, FilterInfo, Params, at_setup
from streamfx_plugins.pictures import network_size, parse_loras, read_picture, to_frames, to_tensor

if TYPE_CHECKING:
    import torch

    from streamfx.models.avatar_wan.flash_head import FlashHead
    from streamfx.models.avatar_wan.live_avatar import LiveAvatar
    from streamfx.models.avatar_wan.speaker import SpeakingWan

_LOOKAHEAD = 1.2
"""Seconds: the longest chunk, SoulX-FlashHead's, of which all sound is there before its first picture is drawn."""

_PATIENCE = 2.0
"""Seconds by which sound may be behind the picture before its moments show what was last seen."""

_LATEST = 3.0
"""Seconds by which a live stream may be behind; what is later is left out, so that a stop is made up for."""

_MULTIPLE = 16
"""Pixels: the autoencoder shrinks by 8, the transformer takes patches of 2."""


class AvatarWanParams(Params):
    """Who speaks, and with which checkpoints."""

    prompt: str = Field(
        "a person speaks to the camera",
        max_length=1000,
        title="Prompt",
        description="what is to be seen, not what is said; SoulX-FlashHead takes none",
    )

    image: str = at_setup("", "a picture of who is to speak: a file")
    model: str = at_setup("", "the model: a folder, an index or a file of Wan2.2-S2V, or of SoulX-FlashHead Model_Pro")
    loras: str = at_setup("", "LoRAs to fuse: PLACE or PLACE=WEIGHT, separated by commas; Live Avatar is one, at 0.5")
    audio_model: str = at_setup("", "wav2vec 2.0 that the model was trained with: a folder, or a hub name")
    text: str = at_setup("wan-2.1-1.3b", "where the text encoder is: a name of `streamfx models`, a folder, a hub name")
    vae: str = at_setup("full", "full (Wan's own, from where the text encoder is), light, or a place of either")
    side: int = at_setup(512, "pixels: the network's picture has the area of a square of this side", ge=64, le=2048)
    fps: int = at_setup(25, "pictures a second: 25 for Live Avatar, 16 for Wan2.2-S2V without it", ge=8, le=50)
    steps: int = at_setup(4, "of denoising", ge=2, le=50)
    window: int = at_setup(9, "latent frames of the past that are seen; not by SoulX-FlashHead", ge=1, le=64)
    storage: Literal["same", "int8", "fp8"] = at_setup("same", "how keys and values are stored; not by SoulX-FlashHead")
    seed: int = at_setup(0, "of the noise", ge=0, le=2**31 - 1)
    resident_text: bool = at_setup(False, "the text encoder (11 GB) stays on the device between prompts")
    device: str = at_setup("auto", "auto, cpu, cuda or cuda:N")
    offline: bool = at_setup(False, "nothing is fetched from the network")


class AvatarWan(Filter[AvatarWanParams]):
    """The filter ``avatar-wan``."""

    name = "avatar-wan"
    info = FilterInfo(
        summary="A person from a picture, who says what is heard (wants a very large GPU).",
        takes="audio",
        lookahead=_LOOKAHEAD,
        block=4,
        min_scale=1.0,
        needs=("torch", "diffusers", "transformers"),
        install="pip install 'streamfx[models]'",
    )

    def setup(self, context: Context, params: AvatarWanParams) -> None:
        import torch

        from streamfx.models.avatar.hearing import Hearing
        from streamfx.models.avatar_wan.audio import load_audio
        from streamfx.models.avatar_wan.flash_head import FlashHead
        from streamfx.models.avatar_wan.stream import AvatarStream
        from streamfx.models.devices import choose
        from streamfx.models.registry import resolve

        torch.set_num_threads(context.threads)
        self._device, self._dtype = choose(params.device, torch.bfloat16)
        picture = _picture(params.image, network_size(context.size, params.side, _MULTIPLE))
        if not params.model or not params.audio_model:
            raise UsageError("give model, a place of Wan2.2-S2V or SoulX-FlashHead, and audio_model, its wav2vec 2.0")
        self._drawn = self._loaded(params, picture)
        audio = load_audio(
            resolve(params.audio_model),
            fps=self._drawn.fps,
            early=isinstance(self._drawn, FlashHead),
            device=self._device,
            dtype=self._dtype,
            offline=params.offline,
        )
        self._stream, self._hearing = AvatarStream(self._drawn, audio), Hearing()
        self._live = context.live
        self._rest = picture
        self._newest = 0.0
        self._clear()

    def process(self, block: Block, params: AvatarWanParams) -> Block:
        import torch

        self._follow(params.prompt)
        if block.audio is not None:
            samples, anew = self._hearing.hear(block.audio, block.audio_pts)
            if anew:
                self._stream.reset()
                self._ready.clear()
                self._known = -np.inf
            pictures, labels = self._stream.step(torch.from_numpy(samples))
            if labels:
                start = self._hearing.start or 0.0
                self._ready.extend(zip((start + label for label in labels), to_frames(pictures), strict=True))
                self._known = start + labels[-1] + 1 / self._stream.fps
        self._waiting.extend(block.pts)
        self._newest = max(self._newest, *block.pts)
        moments = self._due(len(block.pts))
        if not moments:
            return Block()
        size = block.frames.shape[2], block.frames.shape[1]
        return block.with_video(np.stack([self._at(moment, size) for moment in moments]), tuple(moments))

    def reset(self) -> None:
        self._hearing.restart()
        self._stream.reset()
        self._clear()

    def _clear(self) -> None:
        self._ready: deque[tuple[float, NDArray[np.uint8]]] = deque()
        self._waiting: deque[float] = deque()
        self._shown = self._rest
        self._known = -np.inf
        self._newest = 0.0

    def _due(self, most: int) -> list[float]:
        """The moments that are to be shown now: those that are drawn, in order."""
        while self._live and self._waiting and self._waiting[0] < self._newest - _LATEST:
            self._waiting.popleft()
        known = max(self._known, self._newest - _PATIENCE)
        ready = sum(moment < known for moment in islice(self._waiting, most))
        return [self._waiting.popleft() for _ in range(ready)]

    def _at(self, moment: float, size: tuple[int, int]) -> NDArray[np.uint8]:
        """What was last drawn at ``moment``."""
        while self._ready and self._ready[0][0] <= moment:
            self._shown = self._ready.popleft()[1]
        return np.asarray(cv2.resize(self._shown, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _loaded(self, params: AvatarWanParams, picture: NDArray[np.uint8]) -> LiveAvatar | FlashHead:
        """The model, and what it needs besides, with the picture."""
        from streamfx.models.avatar_wan.flash_head import FlashHead, FlashWan, flash_schedule
        from streamfx.models.avatar_wan.load import load_avatar
        from streamfx.models.causal_wan.lora import fuse
        from streamfx.models.causal_wan.vae import load_vae
        from streamfx.models.registry import resolve

        loras = [(resolve(place), weight) for place, weight in parse_loras(params.loras)]
        model = load_avatar(resolve(params.model), self._device, self._dtype)
        for place, weight in loras:
            fuse(model, place, weight)
        place = resolve({"light": "taew2.1", "full": params.text}.get(params.vae, params.vae))
        vae = load_vae(place, device=self._device, dtype=self._dtype, offline=params.offline)
        shown = to_tensor(picture[None], picture.shape[1::-1], self._device, self._dtype)[0]
        if isinstance(model, FlashWan):
            return FlashHead(model, vae, shown, schedule=flash_schedule(params.steps), seed=params.seed)
        return self._speaker(model, vae, shown, params)

    def _speaker(self, model: SpeakingWan, vae: Any, picture: torch.Tensor, params: AvatarWanParams) -> LiveAvatar:
        from streamfx.models.avatar_wan.live_avatar import LiveAvatar, live_schedule
        from streamfx.models.causal_wan.text import load_text
        from streamfx.models.registry import resolve

        self._text = load_text(
            resolve(params.text),
            device=self._device,
            dtype=self._dtype,
            resident=params.resident_text,
            offline=params.offline,
        )
        self._model, self._prompt = model, params.prompt
        return LiveAvatar(
            model,
            vae,
            model.prepare(self._text.embed(params.prompt)),
            picture,
            schedule=live_schedule(params.steps),
            fps=params.fps,
            window=params.window,
            storage=params.storage,
            seed=params.seed,
        )

    def _follow(self, prompt: str) -> None:
        """Takes another prompt. The stream stands still while it is embedded."""
        from streamfx.models.avatar_wan.live_avatar import LiveAvatar

        if isinstance(self._drawn, LiveAvatar) and prompt != self._prompt:
            self._prompt = prompt
            self._drawn.set_prompt(self._model.prepare(self._text.embed(prompt)))


def _picture(place: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture in a file, ``(H, W, 3) uint8`` RGB of ``size`` (width, height), its middle if it has another shape.
    Raises ``UsageError`` if there is none."""
    if not place:
        raise UsageError("give image, a file with a picture of who is to speak")
    held = read_picture(place, "image")
    share = max(size[0] / held.shape[1], size[1] / held.shape[0])
    width, height = (max(length, round(share * given)) for length, given in zip(size, held.shape[1::-1], strict=True))
    whole = cv2.resize(held, (width, height), interpolation=cv2.INTER_AREA if share < 1 else cv2.INTER_CUBIC)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    return np.ascontiguousarray(whole[top : top + size[1], left : left + size[0]], np.uint8)
