"""Checkpoints to callables: networks that the diffusion library drives."""
