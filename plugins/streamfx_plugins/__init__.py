"""Filters that ship with streamfx, registered as any third party's would be."""
