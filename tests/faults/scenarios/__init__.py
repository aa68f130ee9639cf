"""One module per kind of fault: `FAULT`, its name, and `run`, which injects it and returns a Row."""
