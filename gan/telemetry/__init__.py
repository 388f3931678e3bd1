"""What a run tells about itself: on-device means, the log, the progress bar, pictures, Weights & Biases."""
