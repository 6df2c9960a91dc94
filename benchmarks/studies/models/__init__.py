"""Heads of other models beside their own code: what differs, and how long each takes."""
