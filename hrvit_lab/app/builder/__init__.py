"""What the page "Build" consists of: its state in the address, fields, costs, scaling to a budget, exports."""
