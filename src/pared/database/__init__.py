"""The database of experiments: an index of what runs, searches, comparisons and replications left in their folders.

`entries` says what is kept of a run, `tables` how, `versions` upgrades older databases, `connection` opens them,
`keeping` writes and reads; `folders` reads the folders, `provenance` says where they come from, `registration` enters
what a command does.
"""
