"""Runs on disk: what a run is, its file, and the runs of a folder."""
