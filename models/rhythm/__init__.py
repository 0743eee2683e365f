"""The watch for lethal rhythms: features, classifier, and the decision of each second."""
