"""The shipped settings, one YAML a use."""
