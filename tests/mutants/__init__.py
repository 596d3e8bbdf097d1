"""Mutants: what the tests and the simulated soak must notice when the code is broken on purpose."""
