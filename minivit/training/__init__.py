"""Training: one loop for all tasks, recipes, run folders, resumable state, several processes."""
