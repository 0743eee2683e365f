"""Makes the classifier of lethal rhythms: its recordings, training, cross-validation, export."""
