"""The student and the classifiers, their features, and the training loop."""
