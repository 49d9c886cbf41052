"""Act on what plans ask for: in the calling thread, or on an event loop.

The two drivers differ in how they wait and in nothing else; which operation comes when is the plan's affair.
"""

from stepflows.engine.drivers.loop import AsyncDriver
from stepflows.engine.drivers.thread import Driver

__all__ = ["AsyncDriver", "Driver"]
