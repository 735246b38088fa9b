"""Log-mel features of clips: computed, cached, augmented, corrupted."""
