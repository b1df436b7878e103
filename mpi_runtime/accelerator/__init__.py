"""One accelerator calibrated: operators measured with PyTorch, the compute model fitted to them, a machine file."""
