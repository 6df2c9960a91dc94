"""What may end the program while it is being imported, which takes seconds: by one line."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from marfast.errors import is_out_of_memory

BAD, INTERRUPTED = 2, 130  # exit statuses; the second is 128 + SIGINT, as shells count


@contextmanager
def importing() -> Iterator[None]:
    """In the program, Ctrl-C or too little memory inside the block ends it: nothing has begun.

    The signal is not left to an exception, which whatever is being imported may take for its own.
    """
    if not _in_program() or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a shell's background job ignores it
        signal.signal(signal.SIGINT, lambda *_: _end("interrupted", INTERRUPTED))
    try:
        yield
    except (ImportError, OSError, MemoryError, RuntimeError, SystemError) as error:
        if not is_out_of_memory(error):
            raise
        _end("error: out of memory while marfast was being imported", BAD)
    finally:
        signal.signal(signal.SIGINT, before)


def _in_program() -> bool:
    """Whether this process is `marfast` or `python -m marfast`, and not somebody's Python."""
    name = sys.argv[0] if getattr(sys, "argv", None) else ""
    if name == "-m":  # while runpy imports the package
        given = iter(sys.orig_argv)
        return "-m" in given and next(given, "") == "marfast"
    return Path(name).stem == "marfast" or Path(name).parts[-2:] == ("marfast", "__main__.py")


def _end(line: str, status: int) -> NoReturn:
    os.write(2, line.encode() + b"\n")
    os._exit(status)
