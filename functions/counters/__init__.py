"""What the functions share: the rules of a counter, its data, and its HTTP."""
