"""Training and judging a captioner: task, model, data, plan, report, scores."""
