"""Training MAR models: data, the run, checkpoints that it goes on from exactly."""
