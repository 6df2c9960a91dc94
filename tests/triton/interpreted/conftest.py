"""Tests of this folder run the kernels under the interpreter, in a process of their own
(tests/triton/test_interpreter.py): TRITON_INTERPRET is read when triton is imported."""

from marfast.ops.runtime.triton import interpreting

collect_ignore_glob = [] if interpreting() else ["test_*.py"]

if interpreting():
    from tests.triton import interpreter

    interpreter.repair()
