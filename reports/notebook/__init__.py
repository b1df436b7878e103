"""What notebooks show: machines, models, plans, runs and studies as HTML, and plots of a run."""

from .html import html as html
from .run_plots import plots as plots
