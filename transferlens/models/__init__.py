"""Transfer plans and the networks that they describe, with their weights."""
