"""One of the processes of a run: `torchrun -m tests.training.ranks FOLDER`."""

import sys
from pathlib import Path

import torch

from tests.training.runs import QUICK, RARELY, go

if __name__ == "__main__":
    torch.set_num_threads(1)
    go(Path(sys.argv[1]), settings=QUICK, session=RARELY)
