"""Places to deploy to: one module each."""
