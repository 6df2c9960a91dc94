"""The running model: MAR and its tokenizer through the ops."""

from marfast.model.autoencoder import KLTokenizer, load_tokenizer
from marfast.model.mar import FastMAR
from marfast.model.tokenizer import Tokenizer

__all__ = ["FastMAR", "KLTokenizer", "Tokenizer", "load_tokenizer"]
