"""Has batches delivered: when, how many at once, and what an answer means for the others."""
