"""Phases of communication: what a collective puts on which links, as classes of flows that are alike."""
