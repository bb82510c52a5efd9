"""Training and judging a classifier: task, model, data, plan, report, scores."""
