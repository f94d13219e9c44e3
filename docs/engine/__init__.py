"""What these pages need beside Sphinx and its extensions, one module a need."""
