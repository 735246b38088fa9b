"""Numbers from arrays and networks: statistics, predictions, similarity, attribution."""
