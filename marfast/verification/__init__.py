"""The work of `marfast.verify`: cases that original and reference both run, and a table of ops."""
