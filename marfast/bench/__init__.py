"""What `marfast bench` measures: workloads, who runs them, limits of the machine, results."""
