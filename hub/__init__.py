"""marfast's head and blocks as a kernel of the Hugging Face Hub: `layout.py` writes the folder that
the package `kernels` loads, of this folder's files and some of marfast's (docs/packages.md)."""
