"""Expected values of the hidden tests, by routes of their own. Never released.

Imports numpy, scipy, scikit-learn and torch only: a shared bug must not mark itself right.
"""
