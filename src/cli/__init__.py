"""The front desk: how commands start, speak, explain what went wrong, and end."""
