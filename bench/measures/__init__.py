"""One module for each measurement: each has `measure(stack, scale) -> Section`."""
