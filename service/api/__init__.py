"""The HTTP door. Nothing below imports it."""
