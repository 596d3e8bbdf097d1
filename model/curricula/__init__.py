"""Curricula by name, as TOML; `model.curriculum` reads them."""
