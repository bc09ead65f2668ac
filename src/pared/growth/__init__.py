"""Networks that grow while they train: where units are added, what they start with, and loops that add them."""
