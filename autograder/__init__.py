"""Trusted scores for submitted notebooks: intake, realign, sandbox, judge, gradebook, feedback."""
