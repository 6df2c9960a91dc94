"""A run, as small as can be."""

from marfast.checkpoints import Settings
from marfast.evaluation import Run

RUN = Run(
    count=23,
    seed=0,
    kind="tar",
    shard=5,
    part=3,
    classes=10,
    side=28,
    channels=1,
    settings=Settings(num_iter=2),
    dtype="float32",
    device="cpu",
    model="fashion-mnist",
    weights="1" * 64,
    tokenizer="",
)
