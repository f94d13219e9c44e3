"""A training run: configuration, training, record, measurement, tables and pictures."""
