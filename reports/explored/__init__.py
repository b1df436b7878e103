"""Pages that people explore: any saved results as one HTML file with plots, sliders, filters and tables that sort."""
