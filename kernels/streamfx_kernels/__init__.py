"""Kernels of the streaming denoiser: each function is plain torch, and a Triton kernel where there is a GPU.

The reference stands in the module that has the function's name, the kernel in the module of that name in ``gpu``.
``switch`` says which of them runs.
"""
