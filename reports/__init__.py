"""How do we show it? Tables, plots, HTML reports, and published results to compare with."""
