"""Servers that others have, and what marfast registers with them."""
