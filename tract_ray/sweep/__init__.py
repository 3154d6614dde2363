"""A sweep from its checks to its report: the script, the driver, its folder, its follower, its dry run.

`tract_ray.sweep` is this room, and what Python calls to run a sweep: a package and a function of it cannot have one
name, so the room itself can be called.
"""

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from tract_ray.sweep.start import sweep

        return sweep(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
