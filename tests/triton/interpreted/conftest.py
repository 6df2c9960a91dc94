"""Tests of this folder run the kernels under the interpreter, in a process of their own
(tests/triton/test_interpreter.py): TRITON_INTERPRET is read when triton is imported."""

collect_ignore_glob = [] if triton_backend.interpreting() else ["test_*.py"]

if triton_backend.interpreting():
    from tests.triton import interpreter

    interpreter.repair()
