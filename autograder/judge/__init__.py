"""The judge: runs test cells in a trusted process and calls into the sandbox for student code."""
