"""The stories of each kind of results: what a page tells of a run, a study, a search, a campaign, a training."""
