"""`pared retune`: a model that is in use, new data, and whether another one should take its place.

`deployed` reads the old model, `rows` says which rows are new and what for, `drift` whether anything changed, `contest`
looks for a challenger and tests it, `record` and `page` say what came of it.
"""
