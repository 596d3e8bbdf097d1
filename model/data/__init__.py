"""What the model is trained on: embedded files, the order of samples, and batches of them."""
