"""Predictions recorded and watched: store, labels, drift, quality, alerts."""
