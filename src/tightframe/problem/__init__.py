"""What is solved: the problem, its counts, and other conventions converted."""
