"""Losses: pure functions, and the perceptual network."""
