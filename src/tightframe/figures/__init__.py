"""Pictures as data, their looks and the backends that draw them."""
