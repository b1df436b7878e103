"""``reproduce bagualu`` and ``fit bagualu``: the claims, the facts behind them, the report's parts and the fit."""

from .claims import BaGuaLu as BaGuaLu
from .claims import build as build
