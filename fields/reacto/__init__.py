"""REACTO: articulated objects from one video."""
