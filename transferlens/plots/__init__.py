"""Figures from arrays. Only this folder imports matplotlib and seaborn."""
