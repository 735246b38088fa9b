"""Arrays to Axes. Alone in importing matplotlib and seaborn."""
