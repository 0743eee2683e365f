"""The networks, how they run, and the shipped bundles."""
