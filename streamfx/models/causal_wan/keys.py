"""Names in checkpoints to our names, which are those of the original Wan code.

Known: the original, diffusers' ``WanTransformer3DModel``, and generators that were trained in wrappers: CausVid,
Self-Forcing and StreamDiffusionV2 (``generator`` or ``generator_ema`` around ``model.…``, with FSDP's and
torch.compile's marks in between), LongLive (the same), Krea (flat, with ``model.`` or without).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from streamfx.core.errors import UsageError

_MARKS = re.compile(r"(_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module|module)\.")
_CONTAINERS = ("generator_ema", "generator", "generator_lora", "model", "state_dict")
_PREFIXES = ("model.", "base_model.", "transformer.", "diffusion_model.")

_FROM_DIFFUSERS = (
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
    (r"^(blocks\.\d+)\.scale_shift_table$", r"\1.modulation"),
    (r"^(blocks\.\d+)\.norm2\.", r"\1.norm3."),
    (r"^(blocks\.\d+)\.attn1\.", r"\1.self_attn."),
    (r"^(blocks\.\d+)\.attn2\.", r"\1.cross_attn."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
)


def unwrap(checkpoint: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, whatever it is wrapped in. Averaged weights (``generator_ema``) come before the
    others. Raises ``UsageError`` if there are none."""
    found: Mapping[str, object] = checkpoint
    while True:
        inner = next((found[name] for name in _CONTAINERS if isinstance(found.get(name), Mapping)), None)
        if not isinstance(inner, Mapping):
            break
        found = inner
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UsageError("the checkpoint holds no weights; check that it is that of a Wan generator")
    return tensors


def to_ours(checkpoint: Mapping[str, object]) -> dict[str, Tensor]:
    """A state dict by our names. What is not of the transformer (a text encoder beside it) keeps its name."""
    tensors = unwrap(checkpoint)
    return {ours: tensors[name] for name, ours in renamed(tensors).items()}


def renamed(names: Collection[str]) -> dict[str, str]:
    """Our names for those of one checkpoint."""
    found: dict[str, str] = {}
    diffusers = any(".attn1." in name for name in names)
    for name in names:
        short = _MARKS.sub("", name)
        while short.startswith(_PREFIXES):
            short = short.partition(".")[2]
        if diffusers:
            for pattern, replacement in _FROM_DIFFUSERS:
                short = re.sub(pattern, replacement, short)
        found[name] = short
    return found
