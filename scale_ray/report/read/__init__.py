"""From a store to tidy frames: one row per cell, one row per point of a curve. Nothing is averaged here."""
