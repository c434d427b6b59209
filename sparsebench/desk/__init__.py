"""The DESK: models, predictions, plots and reports from records alone. Never imports torch, cupy or triton."""
