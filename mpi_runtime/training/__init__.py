"""What operations do to a rank's data: tokens, experts, gradients, weights; dense models in ``dense/``."""
