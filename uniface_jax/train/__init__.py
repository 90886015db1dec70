"""Training: the step, the loop, and what a long run needs."""
