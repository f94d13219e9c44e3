"""What the exit code of the command says."""

#: After an interruption, what was finished is kept.
DONE, BAD_INPUT, NOT_CONVERGED, INTERRUPTED = 0, 2, 3, 130
