"""What everything else may use: errors, files, lazy imports, processes, text. Imports nothing of the package."""
