"""The only reader of YAML and of the environment: files in, core objects out."""
