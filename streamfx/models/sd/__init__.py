"""Stable Diffusion 1.5, SD-Turbo and SDXL-Turbo from diffusers folders, for the stream batch."""
