"""Experts for real: the gate, the experts of a rank, and the half of a layer that they make."""
