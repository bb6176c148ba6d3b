"""Random operations under random faults, and a checker that reads every answer: `python -m load.campaign`."""
