"""From volts, ohms and ratios to what a sensor measures: pure functions over float64 arrays."""
