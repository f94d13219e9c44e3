"""What happens to the classes of a training, and what to change."""
