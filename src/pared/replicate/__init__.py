"""Papers replicated: one folder a paper, its numbers, its protocol, and ours beside them."""
