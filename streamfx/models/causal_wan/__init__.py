"""Wan 2.1 (arXiv 2503.20314) as a causal video model: block by block, with the past in a KV cache."""
