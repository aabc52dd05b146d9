"""A benchmark for relighting, path-traced: translucent objects in single lights and maps, and how noisy that truth is."""
