"""Names in checkpoints of large avatars: which model they are of, and what of them is not used.

Ours are those of the original code of Wan2.2-S2V and of SoulX-FlashHead; what they may be wrapped in is what
generators are (``causal_wan/keys.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.models.causal_wan.keys import to_ours

Kind = Literal["s2v", "flash-head"]

_TELLING: dict[Kind, str] = {"s2v": "casual_audio_encoder.weights", "flash-head": "audio_proj.proj1_vf.weight"}

_FOREIGN = {
    "motioner.": "is a Wan2.2-S2V with another motion encoder than the published one",
    "audio_proj.audio_proj_glob_1.": "is a HuMo",
    "blocks.0.audio_cross_attn.": "is a MultiTalk or an InfiniteTalk",
    "vace_patch_embedding.": "is a Wan VACE",
    "face_adapter.": "is a Wan2.2-Animate",
    "lora_": "is a LoRA, which goes to loras",
}

_UNUSED = ("text_embedding.", "audio_emb.", "img_emb.")
"""Of SoulX-FlashHead: layers that its transformer has and does not ask."""


def of_avatar(checkpoint: Mapping[str, object], place: str) -> tuple[Kind, dict[str, Tensor]]:
    """Whose weights a checkpoint holds, and those, by our names. Raises ``UsageError`` if they are of neither."""
    weights = to_ours(checkpoint)
    kind = _kind_of(weights, place)
    if kind == "flash-head":
        weights = {name: value for name, value in weights.items() if not name.startswith(_UNUSED)}
    return kind, weights


def _kind_of(names: Collection[str], place: str) -> Kind:
    what = next((words for part, words in _FOREIGN.items() if any(part in name for name in names)), None)
    kind = next((kind for kind, name in _TELLING.items() if name in names), None)
    if kind is None or what is not None:
        what = what or ("is a Wan without sound" if "blocks.0.ffn.0.weight" in names else "is no avatar")
        raise UsageError(f"{place} {what}; give the checkpoint of Wan2.2-S2V, or Model_Pro of SoulX-FlashHead")
    return kind
