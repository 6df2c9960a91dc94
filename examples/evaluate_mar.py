"""Images by LTH14/mar's own code, made fast by one line, in a file that evaluators take.

    python examples/evaluate_mar.py --original path/to/mar --checkpoint checkpoint-last.pth \
        --vae kl16.ckpt --count 50000 --cfg 2.9 --out images.npz

The checkout's model is built as main_mar.py builds it and sampled as engine_mar.py samples it; what
marfast adds is `accelerate`, and the decoding. Classes take turns, as evaluation needs them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import marfast
from marfast.model import load_tokenizer
from marfast.pixels import to_pixels

ARCHITECTURE = ("img_size", "vae_stride", "patch_size", "vae_embed_dim", "class_num", "buffer_size")
HEAD = ("diffloss_d", "diffloss_w", "num_sampling_steps")


def load(original: Path, checkpoint: Path) -> Any:
    """The checkout's model with the averaged weights of its training."""
    sys.path.insert(0, str(original.resolve()))
    from models import mar  # the checkout's

    with torch.serialization.safe_globals([argparse.Namespace]):
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    options = vars(stored["args"])
    model = vars(mar)[options["model"]](**{name: options[name] for name in ARCHITECTURE + HEAD})
    model.load_state_dict(stored["model_ema"])
    return model.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--original", type=Path, required=True, help="a checkout of LTH14/mar")
    parser.add_argument("--checkpoint", type=Path, required=True, help="as main_mar.py saves it")
    parser.add_argument("--vae", required=True, help="kl16.ckpt")
    parser.add_argument("--count", type=int, default=50000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--num-iter", type=int, default=256)
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="an .npz: arr_0 and arr_1")
    options = parser.parse_args(arguments)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = marfast.accelerate(load(options.original, options.checkpoint).to(device))
    vae = load_tokenizer(options.vae)
    vae.to(device)
    labels = torch.arange(options.count) % model.class_emb.num_embeddings
    np.random.seed(options.seed)
    torch.manual_seed(options.seed)
    pixels = []
    for part in labels.split(options.batch):
        with torch.no_grad():
            tokens = model.sample_tokens(
                len(part), num_iter=options.num_iter, cfg=options.cfg, labels=part.to(device)
            )
            images = vae.decode(tokens).clamp(-1, 1)
        pixels.append(to_pixels(images))
        print(f"{sum(map(len, pixels))} of {options.count} images", flush=True)
    np.savez(options.out, arr_0=np.concatenate(pixels), arr_1=labels.numpy())


if __name__ == "__main__":
    main()
