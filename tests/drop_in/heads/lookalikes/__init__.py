"""Small modules that are named and built as other models' heads are, with their sampling loops."""
