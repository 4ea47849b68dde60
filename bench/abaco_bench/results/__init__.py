"""Figures, and what people and later runs see of them."""
