"""From percent sources to notebooks: show, fill, execute, cut the student version, check."""
