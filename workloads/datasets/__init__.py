"""What models are trained on: samples, their bytes, and what it takes to make tokens of them."""

from .dataset import CATALOGUE, Dataset, list_datasets, load_dataset

__all__ = ["CATALOGUE", "Dataset", "list_datasets", "load_dataset"]
