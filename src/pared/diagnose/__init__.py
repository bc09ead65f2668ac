"""`pared diagnose`: what is wrong with a network of a run or of data, and what to change."""
