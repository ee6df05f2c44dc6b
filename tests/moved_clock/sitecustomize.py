"""A clock that is some days ahead, in every Python process with this folder on its path.

    DAYS_AHEAD=400 PYTHONPATH=$PWD/tests/moved_clock make test

Python imports a module of this name at startup, so servers and workers that a test starts see the
same day. Only `time.time` moves, not `datetime.now` or `date.today`, which the product does not
use; waiting and measuring use another clock. Time stamps of files do not move, so a test of a
file's age sets it.
"""

import os
import time

_wall_clock, _wall_clock_ns = time.time, time.time_ns
_ahead = 86_400 * int(os.environ.get("DAYS_AHEAD", "0"))

time.time = lambda: _wall_clock() + _ahead
time.time_ns = lambda: _wall_clock_ns() + _ahead * 1_000_000_000
