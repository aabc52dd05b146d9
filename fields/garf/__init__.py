"""GARF: broken things put back together (Li et al. 2025, arXiv 2504.05400), and how things break.

`solids` and `fracturing` make broken objects to learn from; see docs/garf.md.
"""
