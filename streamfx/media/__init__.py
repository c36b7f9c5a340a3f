"""Bytes to frames and frames to bytes: sources and sinks by URL scheme."""
