"""The Triton kernels: one op a file, its launcher beside it; `tiles` has every configuration.

Launchers take an op's arguments, checked by `marfast.ops`, and check nothing themselves. Importing
this package imports triton.
"""
