"""Processes of our own: how pixels and messages travel between the stream and its children."""
