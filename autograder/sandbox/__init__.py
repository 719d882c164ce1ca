"""The sandbox: student code runs in it and nowhere else."""
