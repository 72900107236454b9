"""Rotations of activations that weights absorb: what they may pass, who absorbs them, and which one to take."""
