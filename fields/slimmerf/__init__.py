"""SlimmeRF: one trained radiance field that can be cut to any size (Yuan and Zhao, 3DV 2024), and better."""
