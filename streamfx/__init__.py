"""Live AI video filters: a stream comes in, a filter works on it by its deadline, a stream goes out.

Importing this package needs neither torch nor FFmpeg; the rooms below are imported when used.
"""

__version__ = "0.1.0"
