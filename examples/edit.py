"""Parts of an image made anew: its lower half as every class, and what could lie beside it.

    python examples/edit.py --label shirt --out edits/

Without `--image` the original is generated. Pixels outside of the mask stay, bit by bit.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import marfast


def read(path: str, side: int) -> Tensor:
    """[1, 1, side, side] in [−1, 1]."""
    picture = Image.open(path).convert("L").resize((side, side))
    return torch.from_numpy(np.array(picture))[None, None].float() / 127.5 - 1


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image", help="a picture; of clothes on black, for this model")
    parser.add_argument("--label", default="shirt", help="what it shows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-iter", type=int, help="iterations; by default in proportion")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    options = parser.parse_args(arguments)

    model = marfast.load("fashion-mnist", steps=options.steps)
    more = {"seed": options.seed, "num_iter": options.num_iter}
    if options.image:
        original = read(options.image, model.side)
    else:
        original = model.generate([options.label], seed=options.seed)

    mask = torch.zeros(model.side, model.side)
    mask[model.side // 2 :] = 1
    classes = [*model.classes]
    masks, originals = mask.repeat(len(classes), 1, 1), original.repeat(len(classes), 1, 1, 1)
    edited = model.edit(originals, masks, labels=classes, **more)
    assert torch.equal(edited[:, :, mask == 0], originals[:, :, mask == 0])
    wide = model.outpaint(original, labels=options.label, left=8, **more)

    marfast.save(original, options.out / "original.png")
    marfast.save(edited, options.out / "lower-half.png")
    marfast.save(wide, options.out / "wide.png")


if __name__ == "__main__":
    main()
