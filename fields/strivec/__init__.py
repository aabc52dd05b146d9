"""Strivec: sparse tri-vector radiance fields."""
