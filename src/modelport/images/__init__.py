"""Container images made from bundles."""
