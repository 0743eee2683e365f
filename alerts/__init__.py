"""When to speak, to whom, until someone answers."""
