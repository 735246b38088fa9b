"""Attributions of held-out clips: computed, scored, drawn, and made audible."""
