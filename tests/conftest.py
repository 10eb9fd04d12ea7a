"""What holds for all tests.

Property tests take the same examples in every run. And the programs that tests start heed SIGINT,
also where a shell runs all of this in the background, and has it ignored.
"""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("proxpi", derandomize=True, database=None, deadline=None)
settings.load_profile("proxpi")
signal.signal(signal.SIGINT, signal.default_int_handler)
