"""What to train next, what a budget buys, and what a change of domains costs."""
