"""`pared runs`: what the database holds, listed, filtered, compared and exported; and filled from folders."""
