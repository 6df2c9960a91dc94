"""Where images go: what has been written is what is said, wherever Ctrl-C comes."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from marfast import files
from marfast.cli import output
from marfast.cli.output import Folder

NAMES = [f"{i}.png" for i in range(3)]
IMAGES = torch.zeros(3, 1, 4, 4)


def add(folder: Folder, interrupt_at: int) -> bool:
    """Add the images, with Ctrl-C at a line of the code that writes them; whether it got there."""
    left = interrupt_at

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in (output.__file__, files.__file__):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        folder.add(IMAGES)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return left <= 0


def test_ctrl_c_at_any_line_leaves_whole_images_and_their_number(tmp_path: Path) -> None:
    seen = set()
    line = 1
    while True:
        folder = Folder(tmp_path / str(line), NAMES, scale=1, force=False)
        if not add(folder, line):
            break
        found = sorted(os.listdir(folder.path)) if folder.path.exists() else []
        assert found == NAMES[: folder.written], line
        assert folder.describe().startswith(f"{len(found)} of 3 images")
        seen.add(len(found))
        line += 1
    assert seen == {0, 1, 2, 3}
    assert line > 100


@pytest.mark.parametrize("written", [0, 2])
def test_a_folder_goes_on_after_what_is_there(written: int, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "new", NAMES, scale=1, force=False, written=written)
    folder.add(IMAGES[written:])
    assert sorted(os.listdir(folder.path)) == NAMES[written:]
    assert folder.written == 3
