"""A model of sequences of vectors: nine speakers' vowels, trained, generated and judged.

    pip download aeon --no-deps
    python -m benchmarks.studies.vowels --data aeon-1.6.0-py3-none-any.whl    # minutes on two cores

JapaneseVowels (Kudo, Toyama and Shimbo 1999; in the wheel of PyPI's aeon): 270 utterances to train
on and 370 to test with, each 7 to 29 frames of 12 cepstral coefficients, by 9 speakers. A MAR whose
tokens are frames learns them; a classifier of speakers, trained on the same real utterances, judges
what it generates for the speakers and lengths of the training set. Writes
benchmarks/results/vowels.json and docs/images/vowels.png.
"""

import argparse
import io
import time
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

import marfast
from benchmarks.studies import RESULTS
from marfast.bench.plots import require, save
from marfast.bench.results import commit, write_rows
from marfast.checkpoints import Architecture, Preset, Settings
from marfast.evaluation.frechet import fit_gaussian, frechet_distance
from marfast.generation.sequences import generate_sequences
from marfast.training import Session, TrainSettings, train
from marfast.training.arrays import Sequences

CHANNELS, LONGEST, SPEAKERS = 12, 29, 9
MODEL = Preset(
    Architecture(
        img_size=LONGEST,
        vae_stride=1,
        patch_size=1,
        vae_embed_dim=CHANNELS,
        encoder_embed_dim=96,
        encoder_depth=3,
        encoder_num_heads=4,
        decoder_embed_dim=96,
        decoder_depth=3,
        decoder_num_heads=4,
        class_num=SPEAKERS,
        buffer_size=4,
        diffloss_d=3,
        diffloss_w=128,
        sequence=True,
    ),
    Settings(num_iter=LONGEST, steps=50, cfg=1.0, clip_denoised=True),
    tuple(f"speaker {i + 1}" for i in range(SPEAKERS)),
)
TRAINING = TrainSettings(
    epochs=250, batch=30, warmup=10.0, schedule="cosine", dropout=0.1, ema=(0.999,)
)
OUT = Path("outputs/vowels")
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "vowels.png"
SHOWN = (0, 3, 6)  # speakers in the picture


class Utterances(NamedTuple):
    """Frames of each utterance [n, 12], and who speaks."""

    frames: list[Tensor]
    speakers: Tensor

    @property
    def lengths(self) -> list[int]:
        return [len(frames) for frames in self.frames]


def read(path: Path, split: str) -> Utterances:
    """TRAIN or TEST, of aeon's wheel or a folder with the .ts files."""
    name = f"JapaneseVowels_{split}.ts"
    if path.is_dir():
        text = (path / name).read_text()
    else:
        with zipfile.ZipFile(path) as wheel:
            text = wheel.read(f"aeon/datasets/data/JapaneseVowels/{name}").decode()
    return parse(text)


def parse(text: str) -> Utterances:
    """Of a .ts file: a line an utterance, its channels and its class between colons."""
    lines = [line.strip() for line in io.StringIO(text)]
    rows = [line.split(":") for line in lines[lines.index("@data") + 1 :] if line]
    frames = [
        torch.tensor([[float(x) for x in channel.split(",")] for channel in row[:-1]]).T
        for row in rows
    ]
    return Utterances(frames, torch.tensor([int(row[-1]) - 1 for row in rows]))


class Classifier(nn.Module):
    """Speakers from utterances: a bidirectional GRU, its mean over the frames, 32 features."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.GRU(CHANNELS, 64, batch_first=True, bidirectional=True)
        self.features = nn.Linear(128, 32)
        self.speakers = nn.Linear(32, SPEAKERS)

    def forward(self, frames: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [N, 9] and features [N, 32]."""
        lengths = torch.tensor([len(f) for f in frames])
        padded = pad_sequence(frames, batch_first=True)
        packed = pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
        out, _ = nn.utils.rnn.pad_packed_sequence(self.frames(packed)[0], batch_first=True)
        features = self.features(out.sum(1) / lengths[:, None]).relu()
        return self.speakers(F.dropout(features, 0.3, self.training)), features

    @torch.no_grad()
    def judge(self, of: Utterances) -> tuple[float, Tensor]:
        """Accuracy, and features [N, 32]."""
        logits, features = self(of.frames)
        return float((logits.argmax(1) == of.speakers).double().mean()), features


def train_classifier(of: Utterances, epochs: int = 150) -> Classifier:
    """On noisy copies, so that it does not learn single utterances."""
    torch.manual_seed(0)
    model = Classifier()
    steps = epochs * -(-len(of.frames) // 30)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(of.frames)).split(30):
            frames = [of.frames[i] + 0.03 * torch.randn_like(of.frames[i]) for i in rows]
            logits, _ = model(frames)
            loss = F.cross_entropy(logits, of.speakers[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
    return model.eval()


def scale_of(train_set: Utterances) -> tuple[Tensor, Tensor]:
    """Middle and half range [12] of each coefficient: what is between is in [−1, 1]."""
    frames = torch.cat(train_set.frames)
    low, high = frames.min(0).values, frames.max(0).values
    return (low + high) / 2, (high - low) / 2


def scaled(of: Utterances, middle: Tensor, half: Tensor) -> Utterances:
    return Utterances([(frames - middle) / half for frames in of.frames], of.speakers)


def as_data(of: Utterances) -> Sequences:
    """As `marfast train` reads them from an .npz with these names."""
    padded = pad_sequence(of.frames, batch_first=True).numpy()
    lengths = np.array(of.lengths)
    return Sequences.of(padded, lengths, of.speakers.numpy(), MODEL.architecture)


def nearest(of: Utterances, to: Utterances) -> float:
    """Mean distance of an utterance to the nearest of a set, all brought to 16 frames."""

    def brought(utterances: Utterances) -> Tensor:
        same = [F.interpolate(f.T[None], 16, mode="linear")[0] for f in utterances.frames]
        return torch.stack(same).flatten(1)

    return float(torch.cdist(brought(of), brought(to)).min(1).values.mean())


def judge(
    classifier: Classifier, real: Utterances, test: Utterances, made: Utterances
) -> dict[str, Any]:
    test_accuracy, of_test = classifier.judge(test)
    accuracy, of_made = classifier.judge(made)
    _, of_train = classifier.judge(real)
    gaussian = fit_gaussian(of_test)
    return {
        "accuracy": accuracy,
        "real_test_accuracy": test_accuracy,
        "frechet_distance": frechet_distance(fit_gaussian(of_made), gaussian),
        "real_frechet_distance": frechet_distance(fit_gaussian(of_train), gaussian),
        "nearest_training_utterance": nearest(made, real),
        "real_test_nearest_training_utterance": nearest(test, real),
    }


def draw(real: Utterances, made: Utterances, file: Path) -> None:
    """The first coefficients over time: real above, generated for the same speaker and lengths
    below."""
    require()
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, len(SHOWN), figsize=(9, 4.5), sharex=True, sharey=True, layout="constrained"
    )
    for column, speaker in enumerate(SHOWN):
        rows = [i for i, who in enumerate(real.speakers.tolist()) if who == speaker][:6]
        for axis, (name, of) in zip(
            axes[:, column], (("real", real), ("generated", made)), strict=True
        ):
            for coefficient, colour in enumerate(("#1f77b4", "#d6604d", "#4d9221")):
                for i in rows:
                    axis.plot(of.frames[i][:, coefficient], color=colour, linewidth=0.9, alpha=0.7)
            axis.set_title(f"speaker {speaker + 1}, {name}", fontsize=9)
    figure.supxlabel("frame", fontsize=9)
    figure.supylabel("coefficients 1 to 3", fontsize=9)
    save(figure, file, force=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="aeon's wheel, or a folder")
    parser.add_argument("--out", type=Path, default=OUT, help="the run's folder")
    parser.add_argument("--epochs", type=int, default=TRAINING.epochs)
    parser.add_argument("--results", type=Path, default=RESULTS / "vowels.json")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    chosen = parser.parse_args()
    of_commit = commit()
    real, test = (read(chosen.data, split) for split in ("TRAIN", "TEST"))
    middle, half = scale_of(real)
    real, test = (scaled(of, middle, half) for of in (real, test))
    begun = time.process_time()
    classifier = train_classifier(real)
    print(f"classifier: {classifier.judge(test)[0]:.1%} of the test utterances", flush=True)
    settings = TRAINING.replace(epochs=chosen.epochs)
    after_judge = time.process_time()
    outcome = train(
        MODEL, as_data(real), chosen.out, settings, session=Session(log_steps=90), resume=True
    )
    trained = time.process_time()
    model = marfast.load(chosen.out / "last")
    made = Utterances(generate_sequences(model, real.speakers, real.lengths, seed=0), real.speakers)
    row = {
        "epochs": outcome.epoch,
        "steps": outcome.step,
        "parameters": sum(p.numel() for p in model.model.module.parameters()),
        "generated": len(made.frames),
        "training_cpu_seconds": trained - after_judge,
        "cpu_seconds": time.process_time() - begun,
        **judge(classifier, real, test, made),
    }
    for name, value in row.items():
        print(f"{name}: {value:.4g}")
    write_rows(chosen.results, [row], force=True, commit=of_commit, settings=asdict(settings))
    draw(
        Utterances([f * half + middle for f in real.frames], real.speakers),
        Utterances([f * half + middle for f in made.frames], made.speakers),
        chosen.picture,
    )


if __name__ == "__main__":
    main()
