"""An endpoint on 127.0.0.1 with faults, limits, prices and books of its own, for anybody's tests.

answers    what it says: an answer made of the question
wire       requests and replies of both APIs, as bodies
acts       how a reply may go wrong, by script or by chance
ledger     what it billed; limits by requests and tokens
endpoint   all of that without a socket
server     the socket: `simulating`
"""

from opengrok_jax.teacher.simulator.endpoint import Settings, Teacher
from opengrok_jax.teacher.simulator.server import simulating

__all__ = ["Settings", "Teacher", "simulating"]
