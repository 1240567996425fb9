"""`dtolbus doctor`: what of this machine could cost data, and what to do. A check takes values and returns Findings."""
