"""Colours that mean the same in every plot and on every page."""

COLOURS = {
    "compute": "#33658a",
    "all_to_all": "#f6ae2d",
    "gradient_sync": "#4f9d69",
    "optimizer": "#8e6c8a",
    "balancing": "#d1495b",
    "imbalance": "#b8b8b8",
    "other": "#86623b",
    "tensor_parallel": "#66c3c9",
    "pipeline_bubble": "#e0e0e0",
    "pipeline_transfer": "#a1c181",
    "offload": "#5c4d7d",
    "launch": "#2f2f2f",
}
"""Colours of the categories of a step's time."""

ENTRIES = {
    "productive": "#33658a",
    "recomputed": "#d1495b",
    "checkpoint": "#f6ae2d",
    "io": "#66c3c9",
    "detection": "#8e6c8a",
    "restart": "#4f9d69",
    "repair_wait": "#b8b8b8",
    "degraded": "#86623b",
}
"""Colours of the entries of a campaign's ledger."""

SERIES = ("#33658a", "#d1495b", "#4f9d69", "#f6ae2d", "#8e6c8a")
"""Colours of curves that are told apart."""
