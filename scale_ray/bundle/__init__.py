"""Trained models outside of a store: bundles, other formats, and predictions on new images (docs/models.md)."""
