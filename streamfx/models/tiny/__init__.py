"""The embedded restyler: a small streaming diffusion model that comes with the package."""
