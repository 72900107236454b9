"""The command line, one command a file. Only typer is imported at the top: `mulshift --help` answers at once."""
