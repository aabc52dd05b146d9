"""Radiance transfer fields: objects under any light."""
