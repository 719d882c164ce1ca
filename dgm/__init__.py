"""Reference implementations of the course, a module per topic, and the plumbing around them."""
