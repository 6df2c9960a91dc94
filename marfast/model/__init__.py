"""The running model: MAR and its tokenizer through the ops."""

from .autoencoder import KLTokenizer, load_tokenizer
from .mar import FastMAR
from .tokenizer import Tokenizer

__all__ = ["FastMAR", "KLTokenizer", "Tokenizer", "load_tokenizer"]
