"""`pared compare-criteria`: the command, its record, and the page that is drawn from it."""
