"""What reports consist of, as data: sections, figures to draw, tables of inputs. Nothing here runs or renders anything."""
