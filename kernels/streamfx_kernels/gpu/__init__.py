"""The Triton kernels. Importing a module of these needs triton."""
