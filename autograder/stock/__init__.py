"""Stock nbgrader, run whole inside bubblewrap on a throwaway course: what ours is compared with."""
