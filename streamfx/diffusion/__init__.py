"""Streaming diffusion as a library: pure torch, no input or output, no models of its own."""
