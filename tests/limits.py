"""How long tests wait before they call something hung; nothing else depends on time.

Each is at least ten times what a quiet machine takes, so that a busy one passes, too. A test that
waits for something ends when it is there.
"""

HANG = 600.0
"""Seconds for a process that takes seconds."""
LONG_HANG = 3600.0
"""Seconds for one that compiles, or tries thousands of things."""
FILE_HANG = 20.0
"""Seconds of the processor for one file of weights, which takes a tenth of one."""
MUTANT_HANG = 60.0
"""Seconds for a changed kernel in the emulator: one that takes longer counts as noticed."""
