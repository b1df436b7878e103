"""Hyper-parameters of all optimizers: their usual values, each with its source. ``--optimizer NAME:KEY=VALUE`` sets others."""

from __future__ import annotations

LEARNING_RATE = 1e-3
"""Kingma and Ba 2015, Algorithm 1; PyTorch's default for Adam, AdamW and SGD."""

BETA_1, BETA_2 = 0.9, 0.999
"""Kingma and Ba 2015, Algorithm 1."""

EPSILON, EPSILON_OF_HALVES = 1e-8, 1e-4
"""Kingma and Ba 2015, Algorithm 1; moments kept in half need a larger one, since smaller ones vanish."""

WEIGHT_DECAY = 0.01
"""PyTorch's default for AdamW; LAMB's for BERT (You et al. 2020, section 4)."""

MOMENTUM = 0.9
"""Of SGD: Sutskever et al. 2013, section 3; He et al. 2016, section 3.4."""

LAMB_EPSILON = 1e-6
"""You et al. 2020, the authors' code."""

ADAFACTOR_DECAY = 0.8
"""Exponent of the second moment's decay, 1 - t^-0.8 (Shazeer and Stern 2018, Algorithm 4)."""

ADAFACTOR_STEP = 1e-2
"""Largest relative step, min(0.01, 1/sqrt(t)) (Algorithm 4)."""

ADAFACTOR_CLIP = 1.0
"""Root mean square above which an update is made shorter (Algorithm 4)."""

ADAFACTOR_EPSILON, ADAFACTOR_SCALE = 1e-30, 1e-3
"""What is added to squared gradients, and the least size that a tensor is taken to have (Algorithm 4)."""

MUON_MOMENTUM = 0.95
"""Jordan et al. 2024 (Muon), kellerjordan.github.io/posts/muon."""

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of an iteration X -> a X + (b A + c A A) X with A = X X^T (the same)."""

NEWTON_SCHULZ_STEPS = 5
"""The same."""

MUON_SCALE = 0.2
"""Updates have the root mean square of AdamW's: times 0.2 sqrt(max(rows, columns)) (Liu et al. 2025, Moonlight, section 2.2)."""

MUON_DECAY = 0.1
"""Weight decay (Liu et al. 2025, section 2.2)."""

BLOCK = 2048
"""Elements that share a scale in 8-bit states (Dettmers et al. 2022, section 2.1)."""
