"""`pared distill`: a smaller student of a run's network, beside the same student trained without a teacher."""
