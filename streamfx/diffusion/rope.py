"""Rotary positions in three axes, as Wan 2.1 has them: frame, row, column (RoFormer, arXiv 2104.09864, by axis).

Frames are rotated by their place in the attention window, not in the stream: numbers stay small however long the stream
is, and the distance between frames is what it was in training. So keys are kept with their rows and columns applied,
which never change, and turned by frame when they are attended to.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Rope3D:
    """Tables for one head size, one grid of tokens and up to ``frames`` positions in time.

    ``dim``: head size, a multiple of 2 and at least 6. Of its ``dim / 2`` pairs, rows and columns get a third each
    (rounded down), frames the rest, first. ``grid``: (height, width) in tokens.
    """

    def __init__(
        self,
        dim: int,
        grid: tuple[int, int],
        frames: int,
        theta: float = 10_000.0,
        device: torch.device | str = "cpu",
    ) -> None:
        if dim % 2 or dim < 6:
            raise ValueError(f"a head size of {dim} cannot be split in three; it must be even and at least 6")
        axis = 2 * (dim // 6)
        self.time_dim = dim - 2 * axis
        self.frames = frames
        height, width = grid
        rows, columns = _angles(height, axis, theta), _angles(width, axis, theta)
        space = torch.cat(
            [rows[:, None].expand(height, width, -1), columns[None].expand(height, width, -1)], dim=-1
        ).flatten(0, 1)
        # Places before zero as well, for those seen from a later one.
        time = _angles(frames, self.time_dim, theta)
        time = torch.cat([-time[1:].flip(0), time])
        self._space, self._time = (
            torch.polar(torch.ones_like(angles), angles).to(device, torch.complex64) for angles in (space, time)
        )

    @property
    def turns(self) -> Tensor:
        """``(S, P, 2)``: cosine and sine of rows and columns, for the pairs after the first ``time_dim`` dimensions."""
        return torch.view_as_real(self._space)

    @property
    def time_turns(self) -> Tensor:
        """``(frames, P, 2)``: cosine and sine of places in time, for the pairs of the first ``time_dim`` dimensions."""
        return torch.view_as_real(self._time[self.frames - 1 :])

    def turns_at(self, places: Tensor) -> Tensor:
        """``(…)`` places from above ``-frames`` to below ``frames`` → ``(…, P, 2)``: their cosines and sines."""
        return torch.view_as_real(self._time[(places + (self.frames - 1)).long()])

    def space(self, x: Tensor) -> Tensor:
        """``(…, S, H, D)``, S the tokens of one frame in rows: rows and columns applied."""
        return _turned(x, slice(self.time_dim, None), self._space[:, None].to(x.device))

    def time(self, x: Tensor, positions: Tensor) -> Tensor:
        """``(…, N, S, H, D)`` and positions ``(N,)`` from above ``-frames`` to below ``frames``: each frame turned to
        its place in the window."""
        return _turned(x, slice(self.time_dim), self._time[positions + (self.frames - 1)][:, None, None].to(x.device))


def space_turns(grid: tuple[int, int], dim: int, theta: float = 10_000.0, device: torch.device | None = None) -> Tensor:
    """``Rope3D.turns`` of a grid (height, width) that may be symbolic, for what is exported: ``(S, P, 2)`` float32."""
    height, width = grid
    axis = 2 * (dim // 6)
    rates = theta ** -(torch.arange(0, axis, 2, dtype=torch.float32, device=device) / axis)
    rows, columns = (torch.arange(length, dtype=torch.float32, device=device)[:, None] * rates for length in grid)
    angles = torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], -1).flatten(0, 1)
    return torch.stack([angles.cos(), angles.sin()], -1)


def _turned(x: Tensor, part: slice, turns: Tensor) -> Tensor:
    """Pairs ``(x[2i], x[2i + 1])`` of a part of the last dimension turned by ``(…, P)`` complex numbers of length 1, in
    single precision."""
    moving = x[..., part].float()
    pairs = torch.view_as_complex(moving.reshape(*moving.shape[:-1], moving.shape[-1] // 2, 2))
    found = x.clone()
    found[..., part] = torch.view_as_real(pairs * turns).flatten(-2)
    return found


def _angles(length: int, dim: int, theta: float) -> Tensor:
    """``(length, dim / 2)`` float64."""
    rates = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.arange(length, dtype=torch.float64)[:, None] * rates
