"""Experiments: train a real network against its prediction, and keep the record on disk."""
