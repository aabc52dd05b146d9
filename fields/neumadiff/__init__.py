"""Material synthesis: measured reflectances as networks of a few hundred weights, and a diffusion model that draws new ones.

NeuMaDiff / M3ashy: Multi-Modal Material Synthesis via Hyperdiffusion (arXiv 2411.12015). See docs/neumadiff.md.
"""
