"""Numerical solvers and the certificate that judges them."""
