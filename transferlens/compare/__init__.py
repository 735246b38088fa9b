"""What several questions share: accuracy by block, ensembles, the paper's values."""
