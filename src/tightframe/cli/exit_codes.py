"""What the exit code of the command says."""

#: After an interruption by Ctrl-C or SIGTERM, what was finished is kept. Where the reader of the
#: output has left, the code is that of a process which SIGPIPE ends.
DONE, BAD_INPUT, NOT_CONVERGED, INTERRUPTED, BROKEN_PIPE, TERMINATED = 0, 2, 3, 130, 141, 143
