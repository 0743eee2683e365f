"""What a run looks like on paper: pictures, and the page they stand on."""
