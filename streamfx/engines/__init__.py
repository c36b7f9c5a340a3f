"""How a module executes: by torch as it is, or by a compiler that is quicker on this machine.

A ``Part`` is a module with its inputs by name; a backend makes an ``Engine`` of it, which is called with tensors and
gives tensors. ``choose`` measures which engine is quickest here, and looks whether it computes the same. ``recipe``
names them, ``cache`` keeps what was made, ``build`` makes a model's, and ``hotswap`` does so beside a stream.
"""

from streamfx.engines.base import Engine, Part, error_of
from streamfx.engines.choose import Choice, Measured, choose
from streamfx.engines.eager import Eager

__all__ = ["Choice", "Eager", "Engine", "Measured", "Part", "choose", "error_of"]
