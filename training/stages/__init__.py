"""The stages of a bundle: restoration, teacher, student."""
