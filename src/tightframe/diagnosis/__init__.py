"""What a trained network does, class by class, and what helps: read from its last layer."""
