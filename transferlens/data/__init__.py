"""Clips with labels and folds: known data sets, a user's table or folder, and the built-in set."""
