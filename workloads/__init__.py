"""What has to be done, and what was done? Models, plans, routing and balancing, the Schedule in, the Run out."""
